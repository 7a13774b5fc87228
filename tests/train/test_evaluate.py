import json

import pytest
import torch

from diptych.core.errors import EvalError
from diptych.data.dataset import Dataset
from diptych.evals.eval import Estimate, Eval, EvalConfig, EvalResult
from diptych.models.pretrained import Pretrained
from diptych.train.accumulate import Accumulator
from diptych.train.build import build_objective, find_tokenizer
from diptych.train.evaluate import evaluate, validation
from tests.train.tiny_run import tiny_config, tiny_dataset


class HalfConfig(EvalConfig):
    fails: bool = False

    def build(self):
        return Half(self)


class Half(Eval):
    needs = ("score",)
    headline = "half"

    def __init__(self, config):
        self.config = config

    def run(self, model, data, artifacts=True):
        if self.config.fails:
            raise EvalError("it must have labels; it has none.")
        metrics = {"half": Estimate(value=0.5, low=0.4, high=0.6), "odd": Estimate(value=float("nan"), low=0, high=1)}
        return EvalResult(task="half", data=self.config.data, split=data.name, metrics=metrics)


@pytest.fixture
def parts(data):
    config = tiny_config(data, val_batches=1, global_batch=8)
    dataset = Dataset.open(data)
    tokenizer = find_tokenizer(config, dataset)
    return config, dataset, tokenizer, build_objective(config, tokenizer, torch.device("cpu"))


def test_the_validation_loss_is_that_of_the_first_batches_and_always_the_same(parts):
    config, dataset, tokenizer, objective = parts
    how = dataset, tokenizer, objective, Accumulator(objective, 3), torch.device("cpu")
    loss = validation(config, *how)
    assert list(loss) == ["val_loss"]
    assert loss == validation(config, *how)
    assert objective.training
    assert all(p.grad is None for p in objective.parameters())
    two = validation(config.replace(train=config.train.replace(val_batches=2)), *how)
    assert two != loss
    assert two == validation(config.replace(train=config.train.replace(val_batches=9)), *how)
    assert validation(config.replace(train=config.train.replace(val_batches=0)), *how) == {}


def test_without_a_validation_split_there_is_no_validation(parts, tmp_path):
    config, dataset, tokenizer, objective = parts
    del dataset.splits["val"]
    assert validation(config, dataset, tokenizer, objective, Accumulator(objective), torch.device("cpu")) == {}
    assert dataset.held_out() == "train"


def test_held_out_prefers_val_and_obeys(parts):
    dataset = parts[1]
    assert dataset.held_out() == "val"
    assert dataset.held_out("train") == "train"
    dataset.splits["test"] = dataset.splits.pop("val")
    assert dataset.held_out() == "test"


def test_evals_are_logged_and_the_last_ones_kept(parts, tmp_path):
    config, dataset, tokenizer, objective = parts
    other = tiny_dataset(tmp_path / "other", copies=1)
    config = config.replace(evals=(HalfConfig(), HalfConfig(data=str(other), split="train")))
    how = config, dataset, Pretrained(objective.model, tokenizer), tmp_path / "run", 64
    records = list(evaluate(*how, final=False))
    assert records == [{"task": "half", "split": s, "half": 0.5} for s in ("val", "train")]
    assert not (tmp_path / "run").exists()
    list(evaluate(*how, final=True))
    assert json.loads((tmp_path / "run" / "evals" / "half-train.json").read_text())["data"] == str(other)


def test_an_eval_that_cannot_run_is_left_out_until_the_end(parts, tmp_path, capsys):
    config, dataset, tokenizer, objective = parts
    how = config.replace(evals=(HalfConfig(fails=True),)), dataset, Pretrained(objective.model, tokenizer), tmp_path, 64
    assert list(evaluate(*how, final=False)) == []
    assert "left out at 64 samples: it must have labels" in capsys.readouterr().err
    with pytest.raises(EvalError):
        list(evaluate(*how, final=True))
