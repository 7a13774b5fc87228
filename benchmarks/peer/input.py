"""The peer's side of `input`: its CsvDataset on a folder of JPEGs, its webdataset pipeline on shards."""

import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.cpu_time import cpu_seconds
from benchmarks.peer.trainer import Trainer, options

from open_clip_train.data import get_data  # isort: skip  # after benchmarks.peer.trainer


class Side:
    """Batches of a ViT-B-32's pixels from `source`: a photos.csv, or a folder of tars."""

    def __init__(
        self, source: str, batch: int, workers: int, records: int, device: str = "cpu", side: int = 224
    ) -> None:
        if workers == 0:
            torch.set_num_threads(1)
        if source.endswith(".csv"):
            data = ["--dataset-type", "csv", "--train-data", source]
        else:
            tars = "::".join(str(p) for p in sorted(Path(source).glob("*.tar")))
            data = ["--dataset-type", "webdataset", "--train-data", tars, "--train-num-samples", str(records)]
        size = ["--force-image-size", str(side)]
        self.trainer = Trainer([*options("ViT-bench-tiny", batch, device), "--workers", str(workers), *data, *size])
        self.batch, self.workers, self.epoch = batch, workers, 0
        transforms = (self.trainer.preprocess_train, self.trainer.preprocess_val)
        self.data = get_data(self.trainer.args, transforms, tokenizer=self.trainer.tokenizer)["train"]
        self.about = {"threads": torch.get_num_threads()}

    def run(self, batches: int) -> dict[str, Any]:
        """Bring `batches` batches onto the device; images a second once the pipe is full, and by second of CPU."""
        skip = 1 + 2 * self.workers  # what workers had begun before the clock
        device, made, times = self.trainer.device, 0, []
        busy = cpu_seconds()
        started = time.perf_counter()
        while made < skip + batches:
            self.data.set_epoch(self.epoch)
            self.epoch += 1
            for images, texts in self.data.dataloader:
                images.to(device, non_blocking=True)
                texts.to(device, non_blocking=True)
                made += 1
                times.append(time.perf_counter())
                if made == skip + batches:
                    break
        rate = batches * self.batch / (times[-1] - times[skip - 1])
        return {
            "rate": rate,
            "first_s": times[0] - started,
            "cpu_s": (cpu_seconds() - busy) / (made * self.batch),
            "shape": list(images.shape),
        }
