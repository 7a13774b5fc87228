"""Small instances of every tower, for the contract over the folder and for the tests of each."""

import importlib
import pkgutil
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

import diptych.models
from diptych.core.config import Config

C = TypeVar("C", bound=Config)

SMALL: dict[str, Any] = {
    "width": 16,
    "depth": 2,
    "heads": 2,
    "patch_size": 8,
    "stem_width": 8,
    "depths": 1,
    "widths": 8,
}
RESOLUTION, VOCAB, CONTEXT, EMBED = 64, 50, 12, 16


def small(cls: type[C], **changes: Any) -> C:
    """A config of `cls` with the fields that set its size made small; a tuple keeps its length."""
    plain = cls()
    sizes = {}
    for name, value in SMALL.items():
        if name in cls.model_fields:
            now = getattr(plain, name)
            sizes[name] = (value,) * len(now) if isinstance(now, tuple) else value
    return plain.replace(**{**sizes, **changes})


def towers_in_the_folder(family: type[C]) -> list[type[C]]:
    """Every concrete config of `family` that a file of `diptych.models` defines."""
    found: list[type[C]] = []
    for info in pkgutil.iter_modules(diptych.models.__path__):
        module = importlib.import_module(f"diptych.models.{info.name}")
        found += [
            c
            for c in vars(module).values()
            if isinstance(c, type) and issubclass(c, family) and c.__module__ == module.__name__ and not c.abstract
        ]
    return found


def stir(module: nn.Module, scale: float = 0.1) -> nn.Module:
    """Adds noise to all parameters and running statistics: ones and zeros of a fresh model hide mistakes."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn_like(p) * scale)
        for name, b in module.named_buffers():
            if name.endswith("running_mean"):
                b.add_(torch.randn_like(b) * scale)
            if name.endswith("running_var"):
                b.mul_(torch.rand_like(b) + 0.5)
    return module


def texts(lengths: tuple[int, ...] = (5, 1, 9, 3)) -> tuple[Tensor, Tensor]:
    """Token ids, cut to the longest text, and their lengths."""
    return torch.randint(2, VOCAB, (len(lengths), max(lengths))), torch.tensor(lengths)
