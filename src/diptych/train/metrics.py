"""What a run says about itself: numbers gathered between two lines of the log, and the places they are written to."""

import importlib.util
import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diptych.core.errors import ConfigError
from diptych.core.progress import say
from diptych.train.steady import Reported


@dataclass
class Interval:
    """Sums since the last line of the log. The exact ones are kept in checkpoints; times are not, for they are over."""

    samples: int = 0
    steps: int = 0
    truncated: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    wait_s: float = 0.0
    timed_samples: int = 0
    timed_flops: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    def add(self, samples: int, reported: Reported, wait_s: float, values: dict[str, float]) -> None:
        """Take in one step; values that are not finite are left out of the means."""
        self.samples += samples
        self.timed_samples += samples
        self.timed_flops += reported.flops
        self.truncated += reported.truncated
        self.wait_s += wait_s
        if all(math.isfinite(v) for v in values.values()):
            self.steps += 1
            for name, value in values.items():
                self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float | None]:
        """Each value's mean over the steps that were finite (None: there was none)."""
        return {k: v / self.steps for k, v in self.sums.items()} if self.steps else {"loss": None}

    def rates(self) -> dict[str, float]:
        """Samples per second of wall time, and the share of it spent waiting for data."""
        elapsed = self.elapsed
        return {"samples_per_s": self.timed_samples / elapsed, "data_wait": min(1.0, self.wait_s / elapsed)}

    @property
    def elapsed(self) -> float:
        """Seconds of training since the interval began."""
        return max(time.perf_counter() - self.started, 1e-9)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"samples": self.samples, "steps": self.steps, "truncated": self.truncated, "sums": dict(self.sums)}


class MetricsLog:
    """Writes records to metrics.jsonl and TensorBoard, and to W&B and MLflow where asked. Main rank only."""

    def __init__(self, run: Path, wandb: str = "", mlflow: str = "", resumed_at: int = 0) -> None:
        self._file = (run / "metrics.jsonl").open("a", buffering=1)
        self._tensorboard = self._wandb = self._mlflow = None
        if importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            purge = resumed_at + 1 if resumed_at else None  # what a killed process wrote beyond is hidden
            self._tensorboard = SummaryWriter(str(run / "tensorboard"), purge_step=purge)
        if wandb:
            module: Any = _import("wandb", "train.wandb")
            self._wandb = module.init(project=wandb, name=run.name, dir=str(run), id=run.name, resume="allow")
        if mlflow:
            self._mlflow = _import("mlflow", "train.mlflow")
            self._mlflow.set_experiment(mlflow)
            self._mlflow.start_run(run_name=run.name)

    def write(self, record: dict[str, Any]) -> None:
        """Append a record; numbers that are not finite become null."""
        clean = {k: _finite(v) for k, v in record.items()}
        self._file.write(json.dumps(clean, ensure_ascii=False) + "\n")
        at = int(record["samples_seen"])
        group = f"{record['kind']}/" if record.get("kind", "train") != "train" else "train/"
        numbers = {k: v for k, v in clean.items() if isinstance(v, (int, float)) and k not in ("samples_seen", "step")}
        if self._tensorboard is not None:
            for name, value in numbers.items():
                self._tensorboard.add_scalar(group + name, value, at)
        if self._wandb is not None:
            self._wandb.log({group + k: v for k, v in numbers.items()} | {"samples_seen": at})
        if self._mlflow is not None:
            self._mlflow.log_metrics({group + k: float(v) for k, v in numbers.items()}, step=at)

    def close(self) -> None:
        """Flush everything."""
        self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()
        if self._mlflow is not None:
            self._mlflow.end_run()


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _import(package: str, setting: str) -> Any:
    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"{setting} must be empty unless {package} is installed; it is not. Install {package}, or clear {setting}: "
            "metrics.jsonl and TensorBoard hold the same numbers."
        )
    say(f"metrics also go to {package}.")
    return importlib.import_module(package)
