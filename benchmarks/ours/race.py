"""Our side of `time_to_accuracy`: `diptych.train` as it is, with an eval that writes embeddings."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.ours.trainer import model_of
from diptych.core.config import override
from diptych.data.image_reader import ImageReader
from diptych.evals.eval import Estimate, Eval, EvalConfig, EvalResult
from diptych.models.pretrained import Pretrained
from diptych.recipes.find import recipe
from diptych.train.loop import train


class WriteEmbeddingsConfig(EvalConfig):
    """Writes unit vectors of a split's pictures and first captions to `out`, a file each time."""

    out: str = ""

    def build(self) -> "WriteEmbeddings":
        """The eval."""
        return WriteEmbeddings(self)


class WriteEmbeddings(Eval):
    """What the race compares; its metric is only the number of files."""

    needs = ("embed_image", "embed_text")
    headline = "files"

    def __init__(self, config: WriteEmbeddingsConfig) -> None:
        self.config = config

    @torch.no_grad()
    def run(self, model: Pretrained, data: Any, artifacts: bool = True) -> EvalResult:
        """Embed every record of `data`."""
        network: Any = model.model
        reader = ImageReader(data, network.config.image_format, 128)
        images = [
            network.embed_image(b.images.to(model.device)).float().cpu() for b in reader.batches(range(len(data)))
        ]
        texts = model.embed_text([data.captions(i)[0] for i in range(len(data))])
        folder = Path(self.config.out)
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("*.npz")))
        keys = np.array([data.key(i) for i in range(len(data))])
        np.savez(folder / f"{number:03d}.npz", image=torch.cat(images).numpy(), text=texts.numpy(), keys=keys)
        files = Estimate(value=number + 1, low=number + 1, high=number + 1)
        return EvalResult(task="embeddings", data=self.config.data, split=str(data.name), metrics={"files": files})


class Side:
    """`recipe` with `settings` (field.sub=value) on `data`. `towers`: a folder of the peer's model, whose architecture
    is taken (fresh weights); empty: the recipe's own."""

    def __init__(self, name: str, settings: list[str], data: str, towers: str = "") -> None:
        config = recipe(name)
        if towers:
            config = config.replace(model=model_of(towers).model.config, tokenizer="clip")
        self.config = override(config, [f"data.path={data}", *settings])
        self.about = {"threads": torch.get_num_threads()}

    def run(self, points: int, out: str, samples: int = 0, seed: int = 0) -> dict[str, Any]:
        """Train; seconds are those of training alone, as the run's own log counts them, evaluations not."""
        shutil.rmtree(out, ignore_errors=True)
        vectors, folder = Path(out) / "vectors", Path(out) / "run"
        t: Any = self.config.train  # type: ignore[attr-defined]
        budget = samples or t.samples_seen
        each = max(t.global_batch, -(-budget // points))
        every = each // 4 // t.global_batch * t.global_batch or t.global_batch
        timed = t.replace(
            samples_seen=budget, eval_every_samples=each, log_every_samples=every, val_batches=0, seed=seed
        )
        writes = WriteEmbeddingsConfig(split="test", out=str(vectors))
        train(self.config.replace(train=timed, evals=(writes,)), folder)
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        trained = [x for x in lines if x["kind"] == "train"]
        files = sorted(vectors.glob("*.npz"))
        seen = [x["samples_seen"] for x in lines if x["kind"] == "eval"]
        found = [
            {"samples": n, "seconds": seconds_until(trained, n), "file": str(f)}
            for n, f in zip(seen, files, strict=True)
        ]
        return {"points": found, "recipe": self.config.recipe}  # type: ignore[attr-defined]


def seconds_until(lines: list[dict[str, Any]], samples: int) -> float:
    """Seconds of training until `samples`, from the rates that a run logs for each of its intervals."""
    seconds, before = 0.0, 0
    for line in lines:
        new = min(line["samples_seen"], samples) - before
        if new <= 0:
            break
        seconds += new / line["samples_per_s"]
        before += new
    return seconds
