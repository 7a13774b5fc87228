"""The first losses of two runs, kept in tests/golden/losses: what changes them changes training itself.

After a change that is meant: ``python -m tests.train.test_golden`` writes them anew; look at the difference.
"""

import json
import tempfile
from pathlib import Path

import pytest
import torch

from diptych.objectives.contrastive import ContrastiveConfig
from diptych.objectives.objective import ObjectiveConfig
from diptych.objectives.sigmoid import SigmoidConfig
from diptych.train.loop import train
from tests.train.test_accumulate import small_vit
from tests.train.tiny_run import tiny_config, tiny_dataset

GOLDEN = Path(__file__).parents[1] / "golden" / "losses"
OBJECTIVES = {"contrastive": ContrastiveConfig(label_smoothing=0.05), "sigmoid": SigmoidConfig()}


def losses(objective: ObjectiveConfig, data: Path, run: Path) -> list[float]:
    """The losses of 20 steps of 16 pairs in float32: from the order of the data to AdamW, all at once."""
    config = tiny_config(data, samples_seen=320, log_every_samples=16, val_batches=0, micro_batch=6)
    bias = -3.0 if isinstance(objective, SigmoidConfig) else None
    config = config.replace(model=small_vit().replace(init_logit_bias=bias), objective=objective)
    train(config, run, device=torch.device("cpu"))
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [r["loss"] for r in records if r["kind"] == "train"]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_first_losses_are_those_that_are_kept(name, data, tmp_path):
    kept = [float(line) for line in (GOLDEN / f"{name}.txt").read_text().splitlines()]
    assert losses(OBJECTIVES[name], data, tmp_path / "run") == pytest.approx(kept, abs=1e-4, rel=1e-4)


if __name__ == "__main__":
    torch.set_num_threads(1)
    GOLDEN.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        where = tiny_dataset(Path(folder) / "data")
        for key, one in OBJECTIVES.items():
            found = losses(one, where, Path(folder) / key)
            (GOLDEN / f"{key}.txt").write_text("".join(f"{value:.6f}\n" for value in found))
