"""One loss, once, in a process of its own, so that its peak of memory is its own. Started by `loss_memory`.

Prints a line of JSON: the peak of resident memory above what was there before (VmHWM; on CUDA the allocator's peak),
the seconds of each forward and backward pass, the loss, and the gradients' norms.
"""

import argparse
import contextlib
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def main() -> None:
    """Measure what the options say."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--side", choices=("diptych", "open_clip"), required=True)
    options.add_argument("--loss", choices=("contrastive", "sigmoid"), required=True)
    options.add_argument("--pairs", type=int, required=True)
    options.add_argument("--width", type=int, default=512)
    options.add_argument("--passes", type=int, default=1)
    options.add_argument("--autocast", action="store_true")
    options.add_argument("--device", default="cpu")
    options.add_argument("--limit", type=int, default=0, help="bytes of private memory that the process may take")
    args = options.parse_args()
    Path("/proc/self/oom_score_adj").write_text("1000")  # should memory run out all the same, then it is this that goes
    if args.limit:
        resource.setrlimit(resource.RLIMIT_DATA, (args.limit, args.limit))
    try:
        print(json.dumps(_measured(args)))
    except (RuntimeError, MemoryError) as error:
        if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
            raise
        print(json.dumps({"error": "out of memory"}))
        sys.exit(0)


def _measured(args: argparse.Namespace) -> dict[str, Any]:
    device = torch.device(args.device)
    loss = (_ours if args.side == "diptych" else _theirs)(args.loss)
    _one(loss, _inputs(256, args.width, device), args.autocast)  # what the libraries set up once
    given = _inputs(args.pairs, args.width, device)
    for x in given:
        x.grad = torch.zeros_like(x)  # the gradients themselves are the result, not extra
    before = _memory(device, reset=True)
    times, found = [], {}
    for _ in range(args.passes):
        for x in given:
            x.grad = torch.zeros_like(x)
        started = time.perf_counter()
        value = _one(loss, given, args.autocast)
        times.append(time.perf_counter() - started)
        found = {"loss": value, "norms": [float(x.grad.norm()) for x in given if x.grad is not None]}
    return {"extra_mb": _memory(device) - before, "seconds": times, **found}


def _inputs(pairs: int, width: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Unit vectors whose partners have a cosine of about 0.3, the logarithm of the scale, the bias."""
    generator = torch.Generator().manual_seed(0)
    image = normalize(torch.randn(pairs, width, generator=generator), dim=1)
    text = normalize(image + 3 * torch.randn(pairs, width, generator=generator) / width**0.5, dim=1)
    scale, bias = torch.tensor(20.0).log(), torch.tensor(-10.0)
    return tuple(x.to(device).requires_grad_() for x in (image, text, scale, bias))  # type: ignore[return-value]


def _one(loss: Loss, given: tuple[Tensor, Tensor, Tensor, Tensor], autocast: bool) -> float:
    device = given[0].device
    with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        value = loss(*given)
    value.backward()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return float(value.detach())


def _memory(device: torch.device, reset: bool = False) -> float:
    """Peak memory in MB since the last reset."""
    if device.type == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated() / 1e6
    if reset:
        # where the kernel has no such file, the peak of the warm-up counts as baseline: it is small
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is resident now
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024 / 1e6


def _ours(kind: str) -> Loss:
    from diptych.core.batch import Batch
    from diptych.objectives.contrastive import ContrastiveConfig
    from diptych.objectives.sigmoid import SigmoidConfig

    class Bare(torch.nn.Module):
        """What an objective asks of a model, without towers."""

        log_logit_scale: Tensor
        logit_bias: Tensor

        def encode_image(self) -> None: ...

        def encode_text(self) -> None: ...

    def loss(image: Tensor, text: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
        model: Any = Bare()
        model.log_logit_scale, model.logit_bias = log_scale, bias
        config = ContrastiveConfig if kind == "contrastive" else SigmoidConfig
        objective = config(duplicates="ignore").build(model)
        return objective.loss({"image": image, "text": text}, Batch(sample_ids=torch.arange(len(image)))).total

    return loss


def _theirs(kind: str) -> Loss:
    from tests.torchvision_on_cpu import install

    install()
    from open_clip.loss import ClipLoss, SigLipLoss

    made: Any = ClipLoss(cache_labels=True) if kind == "contrastive" else SigLipLoss()

    def loss(image: Tensor, text: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
        more = {} if kind == "contrastive" else {"logit_bias": bias}
        return made(image, text, log_scale.exp(), **more)

    return loss


if __name__ == "__main__":
    main()
