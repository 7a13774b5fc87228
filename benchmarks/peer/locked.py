"""The peer's side of `locked`: its trainer with --lock-image on JPEG shards, frozen forward in every step."""

from pathlib import Path
from typing import Any

import torch

from benchmarks.peer.trainer import Stamped, Trainer, memory_mb, options

from open_clip_train.data import get_data  # isort: skip  # after benchmarks.peer.trainer


class Side:
    """open_clip with its image tower locked, fed by its webdataset pipeline from the tars in `source`."""

    def __init__(self, model: str, batch: int, source: str, workers: int, device: str = "cpu", compile: bool = False):
        tars = "::".join(str(p) for p in sorted(Path(source).glob("*.tar")))
        data = ["--dataset-type", "webdataset", "--train-data", tars, "--train-num-samples", str(1 << 30)]
        lock = ["--lock-image", "--lock-image-freeze-bn-stats"]
        self.trainer = Trainer([*options(model, batch, device, compile), "--workers", str(workers), *data, *lock])
        self.batch = batch
        transforms = (self.trainer.preprocess_train, self.trainer.preprocess_val)
        found = get_data(self.trainer.args, transforms, tokenizer=self.trainer.tokenizer)["train"]
        found.set_epoch(0)
        self.pairs = iter(found.dataloader)  # one endless epoch: the pipe stays full from turn to turn
        self.ahead = 2 * workers
        self.about = {"threads": torch.get_num_threads()}

    def export(self, folder: str) -> None:
        """Write the model for the other side."""
        self.trainer.export(folder)

    def run(self, steps: int) -> dict[str, Any]:
        """Take `steps` steps after those whose batches lay ready when the turn began."""
        count = self.ahead + steps
        pairs = Stamped(self.pairs, count, self.batch)
        self.trainer.epoch(pairs)
        return {"rate": pairs.rate(skip=self.ahead), "memory_mb": memory_mb(self.trainer.device)}
