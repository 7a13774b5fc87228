"""Our side of `locked`: `diptych.train` with train.freeze=image, whose tower is computed once into a table."""

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.ours.trainer import BETAS, DECAY, EPS, LR, memory_mb, model_of
from diptych.checkpoints.native import save_pretrained
from diptych.data.augment import AugmentConfig
from diptych.data.dataset import Dataset
from diptych.data.loader import LoaderConfig
from diptych.objectives.contrastive import ContrastiveConfig
from diptych.train.config import RunConfig, TrainConfig
from diptych.train.loop import train


class Side:
    """The same weights and data. Each turn is a run of its own; the table is built in the first and found again."""

    def __init__(self, folder: str, batch: int, source: str, crops: int = 0, compile: bool = False) -> None:
        self.records = len(Dataset.open(source).split("train"))
        self.home = Path(tempfile.mkdtemp(prefix="bench-locked-"))
        pretrained = model_of(folder)
        save_pretrained(self.home / "init", pretrained.model, pretrained.tokenizer, extra={})
        self.config = RunConfig(
            recipe="benchmark:locked",
            init=str(self.home / "init"),
            tokenizer="clip",
            data=LoaderConfig(path=source, augment=AugmentConfig()),
            model=pretrained.model.config,
            objective=ContrastiveConfig(duplicates="ignore"),
            train=TrainConfig(
                global_batch=batch,
                freeze=("image",),
                frozen="cached",
                cached_crops=crops,
                lr=LR,
                betas=BETAS,
                eps=EPS,
                weight_decay=DECAY,
                precision="bfloat16",
                compile=compile,
                val_batches=0,
            ),
        )
        self.batch, self.turn = batch, 0
        self.about = {"threads": torch.get_num_threads(), "records": self.records}

    def run(self, steps: int) -> dict[str, Any]:
        """An epoch, and `steps` steps after it, whose rate is returned: samples over seconds of training."""
        seen = (-(-self.records // (self.batch * steps)) + 1) * steps  # an epoch at least in whole intervals, then one
        length = {"samples_seen": seen * self.batch, "log_every_samples": steps * self.batch}
        config = self.config.replace(train=self.config.train.replace(**length))
        folder = self.home / f"run-{self.turn}"
        self.turn += 1
        started = time.perf_counter()
        train(config, folder)
        whole = time.perf_counter() - started
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        last = [x for x in lines if x["kind"] == "train"][-1]
        assert last["step"] == seen
        shutil.rmtree(folder)
        return {
            "rate": last["samples_per_s"],
            "memory_mb": memory_mb(torch.device("cpu")),
            "whole_s": whole,
        }

    def close(self) -> None:
        """Remove what the turns left."""
        shutil.rmtree(self.home)
