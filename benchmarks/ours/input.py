"""Our side of `input`: the loader that trains, on a packed dataset."""

import time
from typing import Any

import torch

from benchmarks.cpu_time import cpu_seconds
from diptych.core.image_format import ImageFormat
from diptych.data.dataset import Dataset
from diptych.data.loader import Loader, LoaderConfig
from diptych.data.tokenize import Tokenizer


class Side:
    """Batches of CLIP's pixels (a random crop of 90 to 100 %, 224 px) from the packed folder `source`.

    Nothing is kept between epochs: `cache` is off. `decode` is the loader's setting.
    """

    def __init__(
        self, source: str, batch: int, workers: int, decode: str = "full", device: str = "cpu", side: int = 224
    ) -> None:
        if workers == 0:
            torch.set_num_threads(1)
        self.device, self.batch = torch.device(device), batch
        config = LoaderConfig(path=source, workers=workers, cache="none", decode=decode)
        split = Dataset.open(source).split("train")
        self.loader = Loader(split, Tokenizer.clip(77), ImageFormat(resolution=side), config, 0, batch)
        self.start = 0
        self.about = {"threads": torch.get_num_threads(), "workers": self.loader.workers}

    def run(self, batches: int) -> dict[str, Any]:
        """Bring `batches` batches onto the device; images a second once the pipe is full, and by second of CPU."""
        skip = 1 + 2 * self.loader.workers  # what workers had begun before the clock
        ahead = 2 * self.loader.workers  # what they go on with at its end, as the peer's do
        times, busy = [], cpu_seconds()
        started = time.perf_counter()
        stop = self.start + (skip + batches + ahead) * self.batch
        made = self.loader.batches(self.start, stop)
        for batch in made:
            on_device = batch.to(self.device)
            times.append(time.perf_counter())
            if len(times) == skip + batches:
                break
        used = cpu_seconds() - busy
        made.close()
        self.start = stop
        assert on_device.images is not None
        return {
            "rate": batches * self.batch / (times[-1] - times[skip - 1]),
            "first_s": times[0] - started,
            "cpu_s": used / (len(times) * self.batch),
            "shape": list(on_device.images.shape),
        }
