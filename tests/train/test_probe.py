import copy
import json
from dataclasses import replace

import pytest
import torch

from diptych.core.image_format import ImageFormat
from diptych.models import sizes
from diptych.objectives.contrastive import ContrastiveConfig
from diptych.objectives.objective import Objective
from diptych.train import probe
from diptych.train.accumulate import Accumulator, Way
from diptych.train.config import TrainConfig
from diptych.train.loop import train
from diptych.train.probe import Costs, Line, Situation, choose, find_way, leaner, measure, peak, work
from diptych.train.synthetic_batch import Batches, batches_like
from tests.objectives.tiny_model import TinyConfig
from tests.train.test_accumulate import small_vit
from tests.train.tiny_run import tiny_config

CPU = torch.device("cpu")
COSTS = Costs(
    input_=1e3, vector=100.0, plain=Line(0.0, 1e6), recomputed=Line(0.0, 2e5), forward=Line(0.0, 5e4), fixed=0.0
)
AT = Situation(pairs=1000, everyone=1000, coupled=True, batch_norm=False, device=CPU)


def objective(device: str = "cpu", **settings: object) -> Objective:
    with torch.device(device):
        return ContrastiveConfig().build(TinyConfig(**settings).build(20)).train()


def batches(device: str = "cpu") -> Batches:
    return batches_like(ImageFormat(resolution=8), torch.arange(1, 9), torch.device(device))


def test_the_fastest_way_that_fits_is_chosen():
    fast = {budget: choose(COSTS, AT, budget) for budget in (2e9, 6e8, 5e8, 5e7, 1e7)}
    assert fast[2e9] == Way()
    assert fast[6e8] == Way(500, 1)  # 3.5 forward passes and a few launches beat four
    assert fast[5e8] == Way(checkpoint=True)
    assert fast[5e7].micro_batch in range(30, 300)
    assert fast[1e7].micro_batch < fast[5e7].micro_batch
    for budget, way in fast.items():
        assert peak(way, COSTS, AT) <= max(budget, peak(Way(1, 1, True), COSTS, AT))
    assert work(Way(), AT) == 3
    assert work(Way(500, 1), AT) == pytest.approx(3.5, abs=0.25)
    assert work(Way(checkpoint=True), AT) == 4


def test_if_nothing_fits_the_leanest_is_taken_and_it_is_said():
    way = choose(COSTS, AT, 1e3)
    assert way == Way(1, 1, True)
    assert "no way is leaner: lower train.global_batch" in probe.words(way, 1000, 2e6, 1e3)
    assert probe.words(Way(), 4096, 3.14e9, 21e9) == "3.1 GB of 21 GB a step: all 4,096 pairs at once"


def test_batch_norms_see_the_whole_batch_while_any_way_allows_it():
    at = replace(AT, batch_norm=True)
    assert choose(COSTS, at, 5e8) == Way(checkpoint=True)
    assert choose(COSTS, at, 1e8).micro_batch > 1
    assert choose(COSTS, at, 1e3).micro_batch == 2
    assert leaner(Way(), 8, batch_norm=True) == Way(checkpoint=True)
    assert leaner(Way(2, checkpoint=True), 8, batch_norm=True) is None


def test_pieces_of_an_uncoupled_loss_cost_nothing_more_and_checkpointing_can_be_demanded():
    assert choose(COSTS, replace(AT, coupled=False), 6e8) == Way(500)
    assert choose(COSTS, replace(AT, recompute=True), 2e9) == Way(checkpoint=True)


def test_each_leaner_way_needs_less_until_there_is_none():
    way, found = Way(), []
    while way is not None:
        found.append(way)
        way = leaner(way, 256, batch_norm=False)
    needs = [peak(w, COSTS, replace(AT, pairs=256, everyone=256)) for w in found]
    assert needs == sorted(needs, reverse=True)
    assert found[-1] == Way(1, 1, True)


@pytest.mark.parametrize("settings", [{}, {"batch_norm": True, "dropout": 0.3}])
def test_a_measurement_leaves_no_trace(settings):
    one = objective(**settings)
    state = copy.deepcopy(one.state_dict())
    random = torch.get_rng_state()
    costs = measure(one, batches(), 16, "float32")
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(state[n], t) for n, t in one.state_dict().items())
    assert all(p.grad is None for p in one.parameters())
    assert costs.plain.slope >= costs.forward.slope > 0
    assert costs.vector == 4 * 2 * 4  # two vectors of four numbers
    assert 3 * 8 * 8 < costs.input_ < 3 * 8 * 8 + 150


@pytest.mark.slow
def test_an_estimate_without_content_is_not_below_the_measurement():
    config = small_vit().replace(image=small_vit().image.replace(depth=3), text=small_vit().text.replace(depth=3))
    found = {}
    for device in ("cpu", "meta"):
        with torch.device(device):
            one = ContrastiveConfig().build(config.build(20)).train()
        make = batches_like(config.image_format, torch.tensor([8]), torch.device(device))
        found[device] = measure(one, make, 64, "float32")
    # without a device attention is written out, and texts are padded: more is kept
    for name in ("plain", "recomputed", "forward"):
        real, bound = (getattr(found[device], name).slope for device in ("cpu", "meta"))
        assert 0.9 * real < bound < 4 * real, name
    assert found["cpu"].recomputed.slope < found["cpu"].plain.slope


@pytest.mark.slow
def test_a_step_stays_within_what_was_foretold():
    """Counted again around a real step of another size, in each way."""
    config = small_vit().replace(text=small_vit().text.replace(depth=3), image=small_vit().image.replace(depth=3))
    one = ContrastiveConfig().build(config.build(20)).train()
    make = batches_like(config.image_format, torch.tensor([8]), CPU)
    costs = measure(one, make, 96, "float32")
    at = probe.situation(one, 96, False)
    for way in (Way(), Way(32), Way(24, 3), Way(checkpoint=True), Way(32, 1, True)):
        probe.set_checkpointing(one, way.checkpoint)
        accumulate, batch = Accumulator(one, way.micro_batch, kept=way.kept), make(96)
        accumulate(batch)  # gradients are there from now on
        with probe.LiveBytes(probe.tensors_of(one, vars(batch), [p.grad for p in one.parameters()])) as live:
            accumulate(batch)
        foretold = peak(way, replace(costs, fixed=0.0, input_=0.0), at)
        assert 0.5 * foretold < live.peak < 1.2 * foretold, way


@pytest.mark.slow
def test_32768_pairs_of_vit_b32_fit_one_card_of_80_gb():
    """Shapes only, in float32 with full texts, which is the worst case; bfloat16 halves what a pair holds."""
    config = sizes.vit_b32()
    with torch.device("meta"):
        one = ContrastiveConfig().build(config.build(49408)).train()
    costs = measure(one, batches_like(config.image_format, torch.tensor([77]), torch.device("meta")), 32_768, "float32")
    at = replace(probe.situation(one, 32_768, False), device=torch.device("cuda"))
    assert 30e6 < costs.plain.slope < 90e6
    for budget in (80e9, 140e9):
        way = choose(costs, at, 0.92 * budget)
        assert 500 < way.micro_batch < 4_000
        assert not way.checkpoint
        assert 0.5 * budget < peak(way, costs, at) < 0.92 * budget
        assert work(way, at) < 4.3
    assert choose(costs, at, 1e13) == Way()


def test_a_run_is_told_measures_or_does_as_before():
    one, settings = objective(), {"samples_seen": 64, "global_batch": 16}
    given = find_way(TrainConfig(**settings, micro_batch=4, checkpoint_activations=True), one, batches(), {})
    assert given == (Way(4, 1, True), "4 pieces of 4 pairs, blocks computed again (given)")
    auto = TrainConfig(**settings, micro_batch=-1)
    way, why = find_way(auto, one, batches(), {}, budget=1e9)
    assert way == Way()
    assert "all 16 pairs at once" in why
    tight, _ = find_way(auto, one, batches(), {}, budget=45_000.0)
    assert tight != Way()
    again, why = find_way(auto, one, batches(), probe.noted(Way(5, 2), 16), budget=1e9)
    assert (again, why) == (Way(5, 2), "4 pieces of 5 pairs (as before)")
    assert find_way(auto, one, batches(), probe.noted(Way(5, 2), 32), budget=1e9)[0] == Way()  # other processes


def test_a_measured_run_is_the_run_all_at_once_and_notes_its_way(data, tmp_path, monkeypatch, capsys):
    runs = {}
    for name, micro_batch in (("measured", -1), ("whole", 0)):
        runs[name] = train(tiny_config(data, micro_batch=micro_batch), tmp_path / name)
    a, b = ((run / "model" / "model.safetensors").read_bytes() for run in runs.values())
    assert a == b
    assert "all 16 pairs at once" in capsys.readouterr().err
    newest = sorted((runs["measured"] / "checkpoints").iterdir())[-1]
    assert json.loads((newest / "state.json").read_text())["way"] == {
        "pairs": 16, "micro_batch": 0, "kept": 1, "checkpoint": False,
    }  # fmt: skip
    monkeypatch.setattr(probe, "available", lambda device: 1.0)
    train(tiny_config(data), runs["measured"], resume=True)
    assert "all 16 pairs at once (as before)" in capsys.readouterr().err


def test_memory_is_shared_and_limited_by_a_container(monkeypatch):
    free = probe.available(CPU)
    assert free > 0
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert probe.available(CPU) == pytest.approx(free / 2, rel=0.2)
    monkeypatch.setattr(probe, "_number", lambda path: {"memory.max": 1000, "memory.current": 200}[path.name])
    assert probe.available(CPU) == pytest.approx(0.75 * 800 / 2)
    assert probe.agreed(5.0, CPU) == 5.0


@pytest.mark.gpu
def test_on_a_gpu_what_was_measured_is_what_a_step_takes():
    device = torch.device("cuda")
    config = sizes.vit_b32()
    one = ContrastiveConfig().build(config.build(1000)).to(device).train()
    make = batches_like(config.image_format, torch.tensor([20]), device)
    costs = measure(one, make, 512, "bfloat16", probe.available(device))
    for way in (Way(), Way(128), Way(checkpoint=True)):
        probe.set_checkpointing(one, way.checkpoint)
        accumulate, batch = Accumulator(one, way.micro_batch, "bfloat16"), make(512)
        accumulate(batch)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        accumulate(batch)
        taken = torch.cuda.max_memory_allocated() - before
        foretold = peak(way, replace(costs, fixed=0.0, input_=0.0), probe.situation(one, 512, False))
        assert 0.4 * foretold < taken < 1.2 * foretold, way
