import pytest

from diptych.core.config import from_json, override, to_json
from diptych.core.errors import ConfigError
from diptych.train.config import TrainConfig, stage_of
from tests.train.staged import frozen_run, language_run
from tests.train.tiny_run import tiny_config


def test_a_run_reads_back_equal_and_takes_overrides(tmp_path):
    config = tiny_config(tmp_path, progressive=((0.0, 4), (0.5, 8)))
    assert from_json(to_json(config)) == config
    changed = override(config, ["train.lr=3e-4", "objective=sigmoid", "train.betas=[0.9,0.95]", "data.workers=3"])
    assert changed.train.lr == 3e-4
    assert changed.objective.kind().endswith("SigmoidConfig")
    with pytest.raises(ConfigError, match="Did you mean 'warmup_samples'"):
        override(config, ["train.warmup_sample=3"])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"cooldown_samples": 10}, "schedule=constant"),
        ({"samples_seen": 100, "warmup_samples": 101}, "must fit into samples_seen"),
        ({"global_batch": 8, "micro_batch": 16}, "at most global_batch"),
        ({"betas": (0.9, 1.0)}, "below 1"),
        ({"lr": 0.0}, "greater than 0"),
        ({"ema_decay": 1.0}, "less than 1"),
        ({"precision": "float16"}, "'float32' or 'bfloat16'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(values, words):
    with pytest.raises(ConfigError, match=words):
        TrainConfig(**values)


def test_stages_have_names_and_refer_to_those_before_them():
    run = frozen_run("x")
    assert from_json(to_json(run)) == run
    changed = override(run, ["before.0.train.samples_seen=64", "train.lora.rank=4", 'train.rates=[["image",0.1]]'])
    assert changed.before[0].train.samples_seen == 64
    assert changed.train.lora.rank == 4
    assert changed.train.rates == (("image", 0.1),)
    lm = language_run("x")
    for before, words in (
        ((lm, lm), "different names"),
        ((lm.replace(stage=""),), "different names"),
        ((lm, run.replace(stage="b")), "without runs before them"),
        ((lm.replace(stage="other"),), "got 'stage:lm'. Before the last run there are: other"),
        ((lm.replace(init="stage:lm"),), "Before lm there are: none"),
    ):
        with pytest.raises(ConfigError, match=words):
            run.replace(before=before)
    with pytest.raises(ConfigError, match=r"names a folder and no setting of a run; got 'train'"):
        lm.replace(stage="train")
    with pytest.raises(ConfigError, match="greater than 0"):
        TrainConfig(rates=(("image", 0.0),))
    assert [stage_of(w) for w in ("stage:lm", "stage:lm#language", "runs/lm", "")] == ["lm", "lm", "", ""]
