"""The peer's side of `time_to_accuracy`: whole runs of open_clip's recipe, its embeddings written at points on the way.

Data come through its webdataset pipeline ("wds"), or, more kindly to it, from pictures that are decoded and captions
that are tokenised before the clock starts ("memory"); its augmentation runs per picture in both.
"""

import io
import json
import shlex
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.peer.trainer import Pair, Stamped, Trainer, options

from open_clip_train.data import get_data  # isort: skip  # after benchmarks.peer.trainer
from open_clip_train.scheduler import cosine_lr  # isort: skip


class Side:
    """A recipe on the packed dataset `data`: `more` are further options of open_clip's command line.

    `captions`: "first", what its pipeline reads; "draw": by weight among a record's captions, as ours does.
    """

    def __init__(
        self,
        model: str,
        data: str,
        batch: int,
        source: str = "memory",
        captions: str = "first",
        compile: bool = False,
        more: str = "",
    ) -> None:
        self.command = [*options(model, batch, compile=compile), *shlex.split(more)]
        self.data, self.batch, self.source, self.captions = Path(data), batch, source, captions
        self.tars = sorted((self.data / "train").glob("*.tar"))
        self.test = [(image, words[0], key) for image, words, _, key in _records(self.data / "test")]
        self.train = _records(self.data / "train") if source == "memory" else []
        self.about = {"threads": torch.get_num_threads(), "records": len(self.train), "test": len(self.test)}

    def export(self, folder: str) -> None:
        """Write a model of the architecture for the other side."""
        Trainer(self.command).export(folder)

    def run(self, lr: float, samples: int, warmup: int, points: int, out: str, seed: int = 0) -> dict[str, Any]:
        """Train `samples` samples with a warm-up of `warmup`; `points` evaluations on the way, the last at the end.

        Seconds are those of training alone, data and compiling included, evaluations not.
        """
        share = max(1, samples // self.batch // points)  # steps between two evaluations
        steps = share * points
        more = ["--lr", str(lr), "--seed", str(seed)]
        if self.source == "wds":
            tars = "::".join(map(str, self.tars))
            more += ["--dataset-type", "webdataset", "--train-data", tars, "--train-num-samples", str(1 << 30)]
        trainer = Trainer([*self.command, *more], grad_clip=0.0)
        scheduler = cosine_lr(trainer.optimizer, lr, max(1, warmup // self.batch), steps)
        pairs = self._wds(trainer) if self.source == "wds" else self._memory(trainer, seed)
        Path(out).mkdir(parents=True, exist_ok=True)
        seconds, found = 0.0, []
        for number in range(points):
            started = time.perf_counter()
            trainer.epoch(Stamped(pairs, share, self.batch), scheduler, number)
            seconds += time.perf_counter() - started
            path = Path(out) / f"{number:03d}.npz"
            np.savez(path, **self._embedded(trainer))
            found.append({"samples": (number + 1) * share * self.batch, "seconds": seconds, "file": str(path)})
        parameters = sum(p.numel() for p in trainer.model.parameters())
        return {"points": found, "parameters": parameters}

    def _wds(self, trainer: Trainer) -> Iterator[Pair]:
        data = get_data(trainer.args, (trainer.preprocess_train, trainer.preprocess_val), tokenizer=trainer.tokenizer)
        data["train"].set_epoch(0)
        return iter(data["train"].dataloader)

    def _memory(self, trainer: Trainer, seed: int) -> Iterator[Pair]:
        words = [trainer.tokenizer(texts) for _, texts, _, _ in self.train]
        rng = np.random.default_rng(seed)

        def batches() -> Iterator[Pair]:
            order: list[int] = []
            while True:
                while len(order) < self.batch:
                    order += rng.permutation(len(self.train)).tolist()
                now, order = order[: self.batch], order[self.batch :]
                images = torch.stack([trainer.preprocess_train(self.train[i][0]) for i in now])
                drawn = [0] * len(now)
                if self.captions == "draw":
                    drawn = [int(rng.choice(len(self.train[i][1]), p=self.train[i][2])) for i in now]
                yield images, torch.stack([words[i][d] for i, d in zip(now, drawn, strict=True)])

        return batches()

    @torch.no_grad()
    def _embedded(self, trainer: Trainer, batch: int = 128) -> dict[str, np.ndarray]:
        """Unit vectors of the test pictures and their first captions, in float32."""
        model = trainer.model.eval()
        rows: dict[str, list[torch.Tensor]] = {"image": [], "text": []}
        for start in range(0, len(self.test), batch):
            part = self.test[start : start + batch]
            images = torch.stack([trainer.preprocess_val(image) for image, _, _ in part]).to(trainer.device)
            rows["image"].append(model.encode_image(images, normalize=True))
            tokens = trainer.tokenizer([text for _, text, _ in part]).to(trainer.device)
            rows["text"].append(model.encode_text(tokens, normalize=True))
        model.train()
        vectors = {k: torch.cat(v).float().cpu().numpy() for k, v in rows.items()}
        return {**vectors, "keys": np.array([key for _, _, key in self.test])}


def _records(folder: Path) -> list[tuple[Image.Image, list[str], list[float] | None, str]]:
    """(picture, captions, their weights, key) of every record of a split's tars, in order."""
    found = []
    for path in sorted(folder.glob("*.tar")):
        parts: dict[str, dict[str, bytes]] = {}
        with tarfile.open(path) as tar:
            for member in tar:
                stem, _, suffix = member.name.rpartition(".")
                content = tar.extractfile(member)
                assert content is not None
                parts.setdefault(stem, {})[suffix] = content.read()
        for key, files in parts.items():
            about = json.loads(files.get("json", b"{}"))
            words = about.get("captions") or [files["txt"].decode()]
            picture = next(v for k, v in files.items() if k in ("png", "jpg", "jpeg", "webp"))
            found.append((Image.open(io.BytesIO(picture)).convert("RGB"), words, about.get("weights"), key))
    return found
