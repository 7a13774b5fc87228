"""Our side: a model with open_clip's weights, trained by the functions that `diptych.train.loop` is made of."""

import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.material import captions, pixels
from diptych.checkpoints.convert import assemble, read
from diptych.core.batch import Batch
from diptych.core.distributed import rank
from diptych.data.tokenize import Tokenizer
from diptych.models import sizes
from diptych.models.pretrained import Pretrained
from diptych.nn.checkpointing import set_checkpointing
from diptych.objectives.contrastive import ContrastiveConfig
from diptych.train.accumulate import Accumulator
from diptych.train.compiling import compile_blocks
from diptych.train.config import TrainConfig
from diptych.train.environment import seed_step, set_up
from diptych.train.optimizer import build_optimizer, clip_gradients, gradient_norm, set_lr
from diptych.train.probe import find_way
from diptych.train.steady import Outcomes, Reported, judge

LR, DECAY, BETAS, EPS = 5e-4, 0.2, (0.9, 0.98), 1e-6
"""open_clip's defaults for a ViT."""


def model_of(folder: str) -> Pretrained:
    """The model that `benchmarks.peer.trainer.Trainer.export` wrote, weights and all; ``sizes:NAME``: one of
    `diptych.models.sizes` with fresh weights."""
    if folder.startswith("sizes:"):
        config = getattr(sizes, folder.removeprefix("sizes:"))()
        torch.manual_seed(0)
        return Pretrained(config.build(sizes.CLIP_VOCAB_SIZE), Tokenizer.clip(config.context_length))
    found = read("open_clip", Path(folder))
    return assemble(found, Tokenizer.clip(found.config.context_length))


class Trainer:
    """Objective, optimizer and accumulator around the model in `folder`, as train/build.py puts them together."""

    def __init__(
        self,
        folder: str,
        device: str = "cpu",
        compile: bool = False,
        micro_batch: int = 0,
        precision: str = "bfloat16",
        grad_clip: float = 1.0,
    ) -> None:
        self.device, self.grad_clip, self.precision = torch.device(device), grad_clip, precision
        set_up(0, False, self.device)
        self.outcomes = Outcomes(self.device)
        self.pretrained = model_of(folder)
        self.tokenizer = self.pretrained.tokenizer
        # duplicates count as negatives in open_clip, so here too: the same loss
        self.objective = ContrastiveConfig(duplicates="ignore").build(self.pretrained.model.to(self.device)).train()
        self.optimizer = build_optimizer(self.objective, LR, DECAY, BETAS, EPS)
        if compile:
            compile_blocks(self.objective)
        self.accumulate = Accumulator(self.objective, micro_batch, precision)
        self.steps = 0

    @property
    def side(self) -> int:
        """Pixels of the images' sides."""
        return int(self.pretrained.model.config.image_format.resolution)

    def batches(self, count: int, size: int, longer: int = 1) -> list[Batch]:
        """`count` batches of this rank's, the same pixels and captions that the peer has; pixels stay uint8."""
        found = []
        for i in range(count * rank(), count * (rank() + 1)):
            lines = captions(size * longer, i * size * longer)
            words = [", ".join(lines[j * longer : (j + 1) * longer]) for j in range(size)]
            tokens, lengths = self.tokenizer.batch(words)
            images = torch.from_numpy(pixels(size, self.side, seed=i))
            found.append(
                Batch(
                    images=images,
                    image_record=torch.arange(size),
                    tokens=tokens,
                    lengths=lengths,
                    sample_ids=torch.arange(size),
                )
            )
        return found

    def step(self, batch: Batch) -> None:
        """Forward, loss, backward, clip, AdamW, temperature held, gradients dropped: what the loop does in a step."""
        seed_step(0, self.steps)
        set_lr(self.optimizer, LR)
        losses = self.accumulate(batch.to(self.device)).losses
        verdict = judge(self.objective, losses, Reported())
        clip_gradients(self.objective, self.grad_clip, verdict.norm)
        self.optimizer.found_inf = verdict.skipped  # type: ignore[attr-defined]  # as the loop has it
        self.optimizer.step()
        self.objective.model.after_step()
        self.optimizer.zero_grad(set_to_none=True)
        self.outcomes.put(self.steps, verdict, 0.0)
        for outcome in self.outcomes.take():
            if outcome.skipped:
                raise FloatingPointError(f"step {outcome.step} must be finite; got {outcome.values}")
        self.steps += 1

    def cut_by_probe(self, batch: Batch) -> str:
        """Have the memory decide how a batch of this size is cut (train.micro_batch=-1); what it decided."""
        pairs = batch.size
        config = TrainConfig(global_batch=pairs, micro_batch=-1, precision=self.precision)
        way, why = find_way(config, self.objective, lambda n: batch.slice(0, n).to(self.device), {})
        set_checkpointing(self.objective, way.checkpoint)
        self.accumulate = Accumulator(self.objective, way.micro_batch, self.precision, way.kept)
        return why

    def flops(self, batches: list[Batch]) -> float:
        """Operations that forward and backward of a pair need on average: three forward passes of both towers, real
        tokens only (Kaplan et al. 2020, arXiv:2001.08361, appendix A, with attention)."""
        config: Any = self.pretrained.model.config
        image, text = config.image, config.text
        patches = (self.side // image.patch_size) ** 2
        forward = _tower_flops(image.depth, image.width, image.mlp_ratio, patches + 1)
        forward += 2 * 3 * image.patch_size**2 * image.width * patches
        lengths = [n for b in batches if b.lengths is not None for n in b.lengths.tolist()]
        forward += sum(_tower_flops(text.depth, text.width, text.mlp_ratio, n) for n in lengths) / len(lengths)
        return 3.0 * forward

    def gradient(self, batch: Batch, precision: str = "float32") -> dict[str, Any]:
        """Loss, gradient norm and the first embeddings of a batch, with nothing updated."""
        found = Accumulator(self.objective, 0, precision)(batch.to(self.device))
        norm = gradient_norm(self.objective)
        self.optimizer.zero_grad(set_to_none=True)
        first = {k: found.encoded[k][:4].float().cpu().tolist() for k in ("image", "text")}
        return {"loss": float(found.losses.total), "norm": float(norm), **first}


def _tower_flops(depth: int, width: int, mlp_ratio: float, tokens: int) -> float:
    """One forward pass of a transformer over one sequence."""
    return depth * tokens * (2 * (4 + 2 * mlp_ratio) * width**2 + 4 * tokens * width)


def matrix_tflops(device: torch.device) -> float:
    """What the device does of large bfloat16 matrix products, in TFLOP/s: the best of a few."""
    side, repeats = (8192, 10) if device.type == "cuda" else (2048, 1)
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = 0.0
    for _ in range(5):
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(repeats):
            a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, repeats * 2 * side**3 / (time.perf_counter() - started) / 1e12)
    return best


def memory_mb(device: torch.device) -> float:
    """Peak of the device's memory, or the resident peak of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1e3
