"""open_clip's own trainer, set up as its main.py does it and turned over by its own `train_one_epoch`.

What main.py does inline (and so cannot be called) is done here in the same order: the model from
`create_model_and_transforms`, the towers locked, the optimizer's two groups, no gradient scaler for bfloat16,
`torch.compile` around the whole model, the loss from `create_loss`. Options come from its own `parse_args`.
"""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.torchvision_on_cpu import install

from benchmarks.material import captions, model_file, pixels

install()

import open_clip  # noqa: E402  # not before torchvision can be imported
from open_clip_train.data import DataInfo  # noqa: E402
from open_clip_train.distributed import init_distributed_device  # noqa: E402
from open_clip_train.main import random_seed  # noqa: E402
from open_clip_train.params import parse_args  # noqa: E402
from open_clip_train.precision import get_autocast  # noqa: E402
from open_clip_train.train import train_one_epoch  # noqa: E402

Pair = tuple[torch.Tensor, torch.Tensor]


class Trainer:
    """A model with its optimizer and loss. `options` are those of ``python -m open_clip_train.main``."""

    def __init__(self, options: Sequence[str], grad_clip: float = 1.0) -> None:
        logging.getLogger().setLevel(logging.WARNING)
        args = parse_args([*options, *(("--grad-clip-norm", str(grad_clip)) if grad_clip else ())])
        file = model_file(args.model)
        if file is not None:
            open_clip.add_model_config(file)
        args.distill, args.wandb = False, False
        if isinstance(args.force_image_size, (tuple, list)):
            args.force_image_size = args.force_image_size[0]
        if args.device.startswith("cuda"):
            torch.backends.cuda.matmul.allow_tf32 = True
            torch.backends.cudnn.benchmark = True
        self.args, self.device = args, init_distributed_device(args)
        random_seed(args.seed, 0)
        self.model, self.preprocess_train, self.preprocess_val = open_clip.create_model_and_transforms(
            args.model,
            args.pretrained,
            precision=args.precision,
            device=self.device,
            output_dict=True,
            force_image_size=args.force_image_size,
            aug_cfg=args.aug_cfg,
        )
        random_seed(args.seed, args.rank)
        if args.lock_image:
            self.model.lock_image_tower(
                unlocked_groups=args.lock_image_unlocked_groups, freeze_bn_stats=args.lock_image_freeze_bn_stats
            )
        if args.grad_checkpointing:
            self.model.set_grad_checkpointing()
        wrapped = self.model
        if args.distributed:  # main.py names device_ids, which DDP refuses on a CPU
            ids = [self.device] if self.device.type == "cuda" else None
            wrapped = torch.nn.parallel.DistributedDataParallel(self.model, device_ids=ids)
        self.optimizer = _optimizer(wrapped, args)
        self.trained = torch.compile(wrapped) if args.torchcompile else wrapped
        self.loss = open_clip.create_loss(args)
        self.tokenizer = open_clip.get_tokenizer(args.model)

    @property
    def side(self) -> int:
        """Pixels of the images' sides."""
        size = self.model.visual.image_size
        return size[0] if isinstance(size, (tuple, list)) else size

    def batches(self, count: int, size: int, longer: int = 1) -> list[Pair]:
        """`count` batches of this rank's: pixels normalised and captions tokenised beforehand, by its own tokenizer."""
        mean = torch.tensor(self.model.visual.image_mean).view(3, 1, 1)
        std = torch.tensor(self.model.visual.image_std).view(3, 1, 1)
        found = []
        for i in range(count * self.args.rank, count * (self.args.rank + 1)):
            images = (torch.from_numpy(pixels(size, self.side, seed=i)).float() / 255 - mean) / std
            found.append((images, self.tokenizer(joined(size, i * size, longer))))
        return found

    def epoch(self, pairs: "Stamped", scheduler: Any = None, number: int = 0) -> None:
        """One of its epochs over `pairs`."""
        self.args.skip_scheduler = scheduler is None
        data = {"train": DataInfo(dataloader=pairs)}
        train_one_epoch(
            self.trained, data, self.loss, number, self.optimizer, None, scheduler, None, self.args, tb_writer=None
        )
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def gradient(self, pair: Pair, precision: str = "fp32") -> dict[str, Any]:
        """Loss, gradient norm and the first embeddings of a batch, with nothing updated."""
        self.optimizer.zero_grad()
        with get_autocast(precision, device_type=self.device.type)():
            out = self.model(*(x.to(self.device) for x in pair))
            loss = sum(self.loss(**out, output_dict=True).values())
        loss.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        self.optimizer.zero_grad()
        first = {k: out[f"{k}_features"][:4].detach().float().cpu().tolist() for k in ("image", "text")}
        return {"loss": float(loss.detach()), "norm": float(norm), **first}

    def export(self, folder: str) -> None:
        """Weights and configuration as ``local-dir:`` of open_clip, which `diptych convert open_clip` reads."""
        from safetensors.torch import save_file

        Path(folder).mkdir(parents=True, exist_ok=True)
        config = open_clip.get_model_config(self.args.model)
        visual = self.model.visual
        preprocess = {
            "size": visual.image_size,
            "mean": list(visual.image_mean),
            "std": list(visual.image_std),
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        }
        state = {k: v.detach().cpu().float().contiguous() for k, v in self.model.state_dict().items()}
        save_file(state, str(Path(folder) / "open_clip_model.safetensors"))
        settings = json.dumps({"model_cfg": config, "preprocess_cfg": preprocess})
        (Path(folder) / "open_clip_config.json").write_text(settings)


class Stamped:
    """What `train_one_epoch` asks of a loader, around any iterable of batches; notes when each batch was asked for."""

    def __init__(self, pairs: Any, count: int, size: int) -> None:
        self._pairs, self.num_batches, self.num_samples, self._size = pairs, count, count * size, size
        self.times: list[float] = []

    def __iter__(self) -> Iterator[Pair]:
        pairs = iter(self._pairs)
        for _ in range(self.num_batches):
            self.times.append(time.perf_counter())
            yield next(pairs)
        self.times.append(time.perf_counter())

    def rate(self, skip: int = 0) -> float:
        """Samples a second from the time that the batch after `skip` was asked for to the last step's end."""
        return (self.num_batches - skip) * self._size / (self.times[-1] - self.times[skip])


def joined(count: int, start: int, longer: int) -> list[str]:
    """`count` captions, each of `longer` of the material's."""
    lines = captions(count * longer, start * longer)
    return [", ".join(lines[i * longer : (i + 1) * longer]) for i in range(count)]


def options(model: str, batch: int, device: str = "cpu", compile: bool = False, accum: int = 1) -> list[str]:
    """The command line of a training run in bfloat16."""
    found = ["--model", model, "--batch-size", str(batch), "--device", device, "--precision", "amp_bf16"]
    return [*found, "--accum-freq", str(accum), *(("--torchcompile",) if compile else ())]


def cycled(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """`count` batches, the given ones in turn."""
    return [pairs[i % len(pairs)] for i in range(count)]


def _optimizer(model: torch.nn.Module, args: Any) -> torch.optim.AdamW:
    """AdamW in main.py's two groups: vectors, norms, biases and the temperature are not decayed."""
    free, decayed = [], []
    for name, p in model.named_parameters():
        if p.requires_grad:
            plain = p.ndim < 2 or any(word in name for word in ("bn", "ln", "bias", "logit_scale"))
            (free if plain else decayed).append(p)
    groups = [{"params": free, "weight_decay": 0.0}, {"params": decayed, "weight_decay": args.wd}]
    return torch.optim.AdamW(groups, lr=args.lr, betas=(args.beta1, args.beta2), eps=args.eps)


def memory_mb(device: torch.device) -> float:
    """Peak of the device's memory, or the resident peak of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1e3


def as_floats(array: np.ndarray) -> list[float]:
    """Plain numbers for JSON."""
    return [float(x) for x in array]
