"""Our side of `step`, `accumulate`, `scaling` and `gpu`: training steps on batches that lie ready."""

import time
from typing import Any

import torch

from benchmarks.ours.trainer import Trainer, matrix_tflops, memory_mb


class Side:
    """The trainer with `count` batches in memory. `accum`: micro-batches of `batch`, 1 for a batch in one piece;
    `probe`: let the memory decide how the whole is cut (train.micro_batch=-1)."""

    def __init__(
        self,
        folder: str,
        batch: int,
        device: str = "cpu",
        compile: bool = False,
        accum: int = 1,
        count: int = 4,
        longer: int = 1,
        probe: bool = False,
    ) -> None:
        self.trainer = Trainer(folder, device, compile, batch if accum > 1 else 0)
        self.batches = self.trainer.batches(count, batch * accum, longer)
        way = self.trainer.cut_by_probe(self.batches[0]) if probe else ""
        if device.startswith("cuda"):  # both sides' batches lie on the device already
            self.batches = [b.to(device) for b in self.batches]
        self.size = batch * accum
        lengths = torch.cat([b.lengths for b in self.batches if b.lengths is not None])
        self.about = {
            "threads": torch.get_num_threads(),
            "side": self.trainer.side,
            "tokens": float(lengths.float().mean()),
            "way": way,
        }

    def check(self) -> dict[str, Any]:
        """Loss, gradient norm and embeddings in float32 and the loss in bfloat16, of the first batch."""
        found = self.trainer.gradient(self.batches[0])
        return found | {"loss_bf16": self.trainer.gradient(self.batches[0], "bfloat16")["loss"]}

    def work(self) -> dict[str, float]:
        """Floating-point operations that a pair of these batches needs, and the rate of a bfloat16 matrix product."""
        return {"flops": self.trainer.flops(self.batches), "matrix_tflops": matrix_tflops(self.trainer.device)}

    def run(self, steps: int) -> dict[str, float]:
        """Take `steps` steps; samples a second, and the memory so far."""
        device = self.trainer.device
        started = time.perf_counter()
        for i in range(steps):
            self.trainer.step(self.batches[i % len(self.batches)])
        if device.type == "cuda":
            torch.cuda.synchronize()
        rate = steps * self.size / (time.perf_counter() - started)
        return {"rate": rate, "memory_mb": memory_mb(device)}
