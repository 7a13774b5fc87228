"""``python -m tests.train.run_tiny DATA RUN STEPS``: the tiny run in a process of its own, resumed if it is there."""

import sys
from pathlib import Path

import torch

from diptych.core.errors import TrainingError
from diptych.train.loop import train
from tests.train.tiny_run import tiny_config


def main(data: str, run: str, steps: str) -> None:
    """Train, or go on."""
    torch.set_num_threads(1)
    every = {"save_every_samples": 48, "log_every_samples": 32, "eval_every_samples": 16 * 100, "keep_checkpoints": 1}
    config = tiny_config(Path(data), samples_seen=16 * int(steps), ema_decay=0.9, micro_batch=6, **every)
    config = config.replace(data=config.data.replace(workers=1))
    try:
        train(config, run, resume=(Path(run) / "config.json").exists(), device=torch.device("cpu"))
    except TrainingError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
