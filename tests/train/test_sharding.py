import importlib
import inspect
import json
import pkgutil
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn

from diptych import models
from diptych.checkpoints.native import load
from diptych.models.tower import ImageTower, TextTower
from diptych.objectives.momentum import EmbeddingQueue
from diptych.train.freeze import objective_around
from diptych.train.loop import train
from diptych.train.lora import LoraConfig, plain
from diptych.train.sharding import (
    METHODS,
    average_whole,
    gathered,
    is_sharded,
    local,
    own_buffers,
    part_of,
    shard,
    wrap,
)
from tests.models.writers import VOCAB, text_batch
from tests.objectives.tiny_model import tiny_batch
from tests.train import ranks, sharded_ranks
from tests.train.staged import prefix_run
from tests.train.tiny_run import tiny_dataset

INSIDE = {"forward", "decay_free", "adopt", "fill", "check_filled", "train"}
"""Public methods of towers that gather by themselves or need not: names, and what is done while a tower is built."""


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes with sharded weights have left what they found."""
    folder = tmp_path_factory.mktemp("sharded")
    tiny_dataset(folder / "data")
    sharded_ranks.shard_together(folder)
    return folder


def towers() -> list[type[nn.Module]]:
    """Every tower of the house."""
    found = set()
    for module in pkgutil.iter_modules(models.__path__, f"{models.__name__}."):
        for _, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(kind, (ImageTower, TextTower)) and not inspect.isabstract(kind):
                found.add(kind)
    return sorted(found, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", towers(), ids=lambda kind: kind.__name__)
def test_every_public_method_gathers_weights_or_is_known_not_to_need_them(kind: type[nn.Module]):
    known = {n for n, _ in inspect.getmembers(nn.Module)} - {"train", "forward"}
    public = {n for n, f in inspect.getmembers(kind, inspect.isfunction) if not n.startswith("_") and n not in known}
    assert public - set(METHODS) <= INSIDE, (
        "a method that runs layers belongs into sharding.METHODS; one that runs none into INSIDE here"
    )


def test_a_single_process_shards_nothing():
    objective = sharded_ranks.transformers()
    before = list(objective.parameters())
    shard(objective)
    assert all(a is b for a, b in zip(before, objective.parameters(), strict=True))
    assert not is_sharded(objective)
    assert wrap(objective) is objective
    weight = before[1]
    assert local(weight) is weight
    assert part_of(weight, weight) is weight
    with gathered(objective.model) as model:
        assert model is objective.model
    average_whole(objective)


@pytest.mark.dist
def test_sharded_processes_have_the_loss_and_gradient_of_one(sharded):
    """The tolerance is float32's, the same as for two processes with whole weights."""
    for micro_batch in (0, 4):
        alone = ranks.gradients(micro_batch)
        pair = [torch.load(sharded / f"{micro_batch}-{r}.pt", weights_only=True) for r in (0, 1)]
        assert alone.keys() == pair[0].keys()
        for name, expected in alone.items():
            assert torch.equal(pair[0][name], pair[1][name]), f"ranks disagree on {name}"
            torch.testing.assert_close(pair[0][name], expected, atol=2e-6, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.dist
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "normed"])
def test_steps_with_sharded_weights_are_those_with_whole_ones(sharded, kind):
    """In pieces, recomputed, in bfloat16, with the main process's running statistics of batch norms: the same products
    of the same numbers, summed over ranks in another order.

    So gradients agree to a unit in the last place; AdamW's first steps have size lr whatever the gradient's, so where
    that is all rounding (a bias that a softmax or a batch norm takes out again), weights may differ by a few times lr.
    """
    one, other = (torch.load(sharded / f"{held}-{kind}-0.pt", weights_only=True) for held in ("whole", "sharded"))
    assert one.keys() == other.keys()
    for name, expected in one.items():
        if not name.endswith(("k_proj.bias", "image_tower.0.bias")):
            torch.testing.assert_close(other[name], expected, atol=2e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.dist
def test_what_processes_see(sharded):
    facts = [json.loads((sharded / f"facts-{r}.json").read_text()) for r in (0, 1)]
    objective = sharded_ranks.transformers()
    entire = sum(p.numel() for p in objective.parameters() if p.ndim)
    assert facts[0]["held"] + facts[1]["held"] == entire
    assert abs(facts[0]["held"] - facts[1]["held"]) < 0.02 * entire
    for fact in facts:
        assert fact["direct"] == 8
        assert "mixed torch.Tensor and DTensor" in fact["forgotten"]
        assert fact["nonfinite"] == ["image_tower.blocks.1.mlp.fc_1.weight"]
        assert fact["norm"] == "nan"


@pytest.mark.dist
def test_a_sharded_run_is_that_of_one_process_and_resumes_to_the_same_bits(sharded, tmp_path):
    train(sharded_ranks.run_config(sharded, "fsdp"), tmp_path / "alone")
    weights = {r: load_file(r / "model" / "model.safetensors") for r in (tmp_path / "alone", sharded / "run")}
    one, other = weights.values()
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=2e-5, rtol=1e-4)
    same = ("model/model.safetensors", "model/fingerprint.json", "metrics.jsonl")
    a, b = ((sharded / run) for run in ("run", "cut"))
    assert all((a / f).read_bytes() == (b / f).read_bytes() for f in same[:2])
    losses = [[json.loads(x).get("loss") for x in (run / same[2]).read_text().splitlines()] for run in (a, b)]
    assert losses[0][-3:] == losses[1][-3:]


@pytest.mark.dist
def test_shards_are_safetensors_that_load_anywhere(sharded, tmp_path):
    """Written by two processes; read whole, as a model, and by a single process that goes on with the run."""
    checkpoints = sorted((sharded / "run" / "checkpoints").iterdir())
    newest = checkpoints[-1]
    files = {p.relative_to(newest).as_posix() for p in newest.rglob("*") if p.is_file()}
    assert {f for f in files if f.startswith("shards/")} == {
        f"shards/shard-{i:05d}-model-00001-of-00001.safetensors" for i in (1, 2)
    }
    assert {Path(f).suffix for f in files} == {".json", ".safetensors"}
    assert load(newest).fingerprint == load(sharded / "run").fingerprint  # the average, which is exported
    assert load(newest, weights="raw").fingerprint != load(newest).fingerprint

    shutil.copytree(sharded / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / newest.name)
    shutil.rmtree(tmp_path / "run" / "model")
    config = sharded_ranks.run_config(sharded, "ddp")
    train(config, tmp_path / "run", resume=True)
    one, other = (load_file(r / "run" / "model" / "model.safetensors") for r in (sharded, tmp_path))
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=2e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.parametrize(
    ("first", "then"), [(("ddp", 2), ("fsdp", 3)), (("fsdp", 3), ("fsdp", 2)), (("fsdp", 3), ("ddp", 2))]
)
def test_any_number_of_processes_goes_on_from_any_other(first, then, tmp_path):
    tiny_dataset(tmp_path / "data")
    train(sharded_ranks.leg_config(tmp_path, "ddp"), tmp_path / "alone")
    sharded_ranks.run_leg(tmp_path, *first, last=False)
    assert (tmp_path / "run" / "checkpoints").is_dir()
    sharded_ranks.run_leg(tmp_path, *then, last=True)
    one, other = (load_file(tmp_path / r / "model" / "model.safetensors") for r in ("alone", "run"))
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=2e-5, rtol=1e-4)


@pytest.fixture
def group_of_one(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Starts a group with this process alone in it, which shards like any other: every part is the whole."""
    yield lambda backend: dist.init_process_group(
        backend, init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1
    )
    dist.destroy_process_group()


def _alike_in_a_group_of_one(device: str) -> None:
    batch = tiny_batch(12, **ranks.IDS).to(device)
    found = []
    for sharded in (False, True):
        objective = sharded_ranks.transformers().to(device)
        if sharded:
            shard(objective)
        assert is_sharded(objective) == sharded
        found.append(sharded_ranks.steps(objective, batch, 5, "bfloat16"))
        objective.eval()
        with gathered(objective.model) as model:
            assert (model is objective.model) != sharded
            assert torch.equal(model.embed_image(batch.images), objective.model.embed_image(batch.images))
    for name, expected in found[0].items():
        torch.testing.assert_close(found[1][name], expected, atol=2e-5, rtol=1e-4)


def test_sharded_steps_in_a_group_of_one(group_of_one):
    group_of_one("gloo")
    _alike_in_a_group_of_one("cpu")


def test_a_writer_with_adapters_and_rates_in_a_group_of_one(group_of_one):
    """Its head is read behind its forward pass; what is gathered is merged."""
    group_of_one("gloo")
    rates = (("connector", 0.5), ("language", 2.0))
    config = prefix_run(lora=LoraConfig(rank=2), only=("connector",), rates=rates)
    batch, found = text_batch((5, 2, 7, 3), side=8), []
    for sharded in (False, True):
        torch.manual_seed(0)
        objective = objective_around(config, config.model.build(VOCAB))
        if sharded:
            shard(objective)
        assert is_sharded(objective) == sharded
        found.append(sharded_ranks.steps(objective, batch, 3, rates=rates))
        with gathered(objective.model) as model:
            merged = plain(model)
            assert (merged is model) == sharded
            found[-1] |= {f"merged/{n}": t for n, t in merged.state_dict().items()}
    assert found[0].keys() == found[1].keys()
    for name, expected in found[0].items():
        torch.testing.assert_close(found[1][name], expected, atol=2e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.gpu
def test_sharded_steps_on_a_gpu(group_of_one):
    torch.cuda.set_device(0)
    group_of_one("nccl")
    _alike_in_a_group_of_one("cuda")


def test_buffers_that_are_alike_anyway_are_named():
    queue = EmbeddingQueue(4, 2)
    assert set(own_buffers(queue)) == {"image", "text", "image_ids", "text_ids", "pointer", "filled"}
    assert own_buffers(nn.BatchNorm1d(2)) == []
