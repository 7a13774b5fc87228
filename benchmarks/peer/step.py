"""The peer's side of `step`, `accumulate`, `scaling` and `gpu`: training steps on batches that lie ready."""

from typing import Any

import torch

from benchmarks.peer.trainer import Stamped, Trainer, cycled, memory_mb, options


class Side:
    """open_clip's trainer with `count` batches in memory. `compile`: its --torchcompile."""

    def __init__(
        self,
        model: str,
        batch: int,
        device: str = "cpu",
        compile: bool = False,
        accum: int = 1,
        count: int = 4,
        longer: int = 1,
    ) -> None:
        local = ["--local-loss", "--gather-with-grad"]  # without effect in one process
        self.trainer = Trainer([*options(model, batch, device, compile, accum), *local])
        self.pairs = self.trainer.batches(count * accum, batch, longer)
        if device.startswith("cuda"):  # both sides' batches lie on the device already
            self.pairs = [(i.to(device), t.to(device)) for i, t in self.pairs]
        self.accum, self.batch = accum, batch
        self.about = {"threads": torch.get_num_threads(), "side": self.trainer.side}

    def export(self, folder: str) -> None:
        """Write the model for the other side."""
        self.trainer.export(folder)

    def check(self) -> dict[str, Any]:
        """Loss, gradient norm and embeddings in float32 and the loss in bfloat16, of the first batch."""
        found = self.trainer.gradient(self.pairs[0])
        return found | {"loss_bf16": self.trainer.gradient(self.pairs[0], "amp_bf16")["loss"]}

    def run(self, steps: int) -> dict[str, float]:
        """Take `steps` steps; samples a second, and the memory so far."""
        count = steps * self.accum
        pairs = Stamped(cycled(self.pairs, count), count, self.batch)
        self.trainer.epoch(pairs)
        return {"rate": pairs.rate(), "memory_mb": memory_mb(self.trainer.device)}
