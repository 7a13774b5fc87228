import pytest
import torch

from diptych.checkpoints.native import save_pretrained
from diptych.core.config import from_json
from diptych.core.errors import ConfigError
from diptych.data.dataset import Dataset
from diptych.train import build as building
from diptych.train.build import Run, build, build_objective, choose_schedule, find_tokenizer, open_data
from tests.train.tiny_run import tiny_config

CPU = torch.device("cpu")


def test_the_same_seed_builds_the_same_weights(data):
    config = tiny_config(data)
    tokenizer = find_tokenizer(config, Dataset.open(data))
    one, two = (build_objective(config, tokenizer, CPU) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    other = build_objective(config.replace(train=config.train.replace(seed=1)), tokenizer, CPU)
    assert not torch.equal(one.model.token_embed.weight, other.model.token_embed.weight)


def test_the_tokenizer_has_the_models_context(data, tmp_path):
    dataset = open_data(tiny_config(data))
    assert find_tokenizer(tiny_config(data), dataset).context_length == 16
    dataset.tokenizer().save(tmp_path)
    config = tiny_config(data).replace(tokenizer=str(tmp_path))
    found = find_tokenizer(config, dataset)
    assert found.context_length == 16
    assert found.vocab_size == dataset.tokenizer().vocab_size


def test_packaged_weights_go_into_fresh_models_alone(data, tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(building, "load_packaged", lambda model: loaded.append(type(model).__name__))
    config, dataset = tiny_config(data), Dataset.open(data)
    tokenizer = find_tokenizer(config, dataset)
    model = build_objective(config, tokenizer, CPU).model
    assert loaded == ["Tiny"]
    save_pretrained(tmp_path / "given", model, tokenizer)
    build_objective(config.replace(init=str(tmp_path / "given")), tokenizer, CPU)
    build_objective(config, tokenizer, CPU, fresh=False)
    assert loaded == ["Tiny"]


def test_a_run_can_take_the_tokenizer_of_packaged_weights(data, monkeypatch):
    dataset = Dataset.open(data)
    monkeypatch.setattr(building, "packaged_tokenizer", lambda name: dataset.tokenizer() if name == "minilm" else None)
    found = find_tokenizer(tiny_config(data).replace(tokenizer="pretrained:minilm"), dataset)
    assert (found.context_length, found.vocab_size) == (16, dataset.tokenizer().vocab_size)


def test_rate_and_warmup_are_chosen_said_and_kept(data, tmp_path, capsys):
    config = tiny_config(data, lr=None, warmup_samples=None)
    run, resumed = build(config, tmp_path / "run", False, CPU)
    assert not resumed
    said = capsys.readouterr().err
    assert "chosen for 0.0 M parameters and a batch of 16; set train.lr to differ" in said
    assert "of the budget; set train.warmup_samples to differ" in said
    kept, _ = choose_schedule(config, run.objective, {"peak_lr": 0.123, "warmup_samples": 64})
    assert (kept.peak_lr, kept.warmup_samples) == (0.123, 64)


def test_batch_and_decay_are_chosen_said_and_noted(data, tmp_path, capsys):
    config = tiny_config(data, global_batch=0, weight_decay=None, samples_seen=2000)
    run, _ = build(config, tmp_path / "run", False, CPU)
    assert (run.config.train.global_batch, run.config.train.weight_decay) == (32, 1.0)
    assert run.optimizer.param_groups[0]["weight_decay"] == 1.0
    assert "batch 32, chosen for 40 records" in capsys.readouterr().err
    noted = from_json((tmp_path / "run" / "config.json").read_text())
    assert noted.train.global_batch == 32


def test_cadences_are_crossed_whatever_the_batch(data, tmp_path):
    run, _ = build(tiny_config(data, samples_seen=160), tmp_path / "run", False, CPU)

    def when(every: int, shares: int = 5) -> list[int]:
        found = []
        for run.step in range(1, 11):
            if run.due(every, shares):
                found.append(run.samples_seen)
        return found

    assert isinstance(run, Run)
    assert when(48) == [48, 96, 144, 160]
    assert when(40) == [48, 80, 128, 160]
    assert when(1000) == [160]
    assert when(0) == [32, 64, 96, 128, 160]


def test_a_batch_that_ranks_cannot_share_is_refused(data, tmp_path, monkeypatch):
    monkeypatch.setattr(building, "world_size", lambda: 3)
    with pytest.raises(ConfigError, match=r"multiple of the 3 processes; got 16\. Try 18"):
        build(tiny_config(data), tmp_path / "run", False, CPU)


def test_batch_norm_in_pieces_is_said(data, tmp_path, capsys):
    config = tiny_config(data, micro_batch=4)
    build(config.replace(model=config.model.replace(batch_norm=True)), tmp_path / "run", False, CPU)
    assert "1 batch norm layers take their statistics over 4 pairs" in capsys.readouterr().err


def test_a_run_starts_from_given_weights(data, tmp_path):
    config = tiny_config(data)
    first, _ = build(config, tmp_path / "first", False, CPU)
    with torch.no_grad():
        for p in first.objective.model.parameters():
            p.add_(1.0)
    given = tmp_path / "given"
    save_pretrained(given, first.objective.model, first.tokenizer)
    second, _ = build(config.replace(init=str(given)), tmp_path / "second", False, CPU)
    for name, value in first.objective.model.state_dict().items():
        assert torch.equal(second.objective.model.state_dict()[name], value), name


def test_given_weights_of_another_vocabulary_are_refused(data, tmp_path):
    config = tiny_config(data)
    first, _ = build(config, tmp_path / "first", False, CPU)
    other = config.model.build(first.tokenizer.vocab_size + 5)
    save_pretrained(tmp_path / "given", other, first.tokenizer)
    with pytest.raises(ConfigError, match="Its own tokenizer fits"):
        build(config.replace(init=str(tmp_path / "given")), tmp_path / "second", False, CPU)


def test_a_mistake_leaves_no_folder_behind(data, tmp_path):
    config = tiny_config(data, progressive=((0.0, 4), (0.5, 6)))  # it must end at the model's side of 8
    with pytest.raises(ConfigError, match="must end at the model's resolution"):
        build(config, tmp_path / "run", False, CPU)
    assert not (tmp_path / "run").exists()
