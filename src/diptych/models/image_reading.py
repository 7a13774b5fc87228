"""Which of an image tower's outputs a language model reads: tokens, at some layer, with or without CLS; or a vector."""

import math
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from diptych.core.config import Config
from diptych.core.errors import ConfigError
from diptych.models.connectors.connector import Given
from diptych.models.tower import ImageTower


class ImageReadingConfig(Config):
    """What is read.

    readout  "tokens" of the tower, or its "pooled" vector as one token (Frozen)
    layer    whose output: -1: the last; -2: the one before, which has no norm (LLaVA, MiniGPT-4)
    norm     whether the last layer's norm is applied (Idefics reads it without)
    cls      whether the CLS token is read too, where there is one
    """

    readout: Literal["tokens", "pooled"] = "tokens"
    layer: int = Field(default=-1, le=-1)
    norm: bool = True
    cls: bool = True


class ImageReading:
    """Reads tokens off a tower. Holds no weights: the tower belongs to the model.

    given   what is read: how many tokens, how wide
    unused  names of the tower's parameters that nothing read depends on (its pooling, its last block): they are kept,
            so that weights go in and out whole, and do not train
    """

    def __init__(self, config: ImageReadingConfig, tower: ImageTower, resolution: int) -> None:
        self.config = config
        self.prefix = int(getattr(tower, "prefix", 0))
        if (config.layer != -1 or not config.norm) and not hasattr(tower, "blocks"):
            raise ConfigError(
                f"reading.layer must be -1 and reading.norm true for a {type(tower).__name__}, which has no blocks to "
                f"choose from; got {config.layer} and {config.norm}. Leave them, or use vision_transformer."
            )
        self.given, self.unused = self._measured(tower, resolution)
        for name, parameter in tower.named_parameters():
            if name in self.unused:
                parameter.requires_grad_(False)

    def __call__(self, tower: ImageTower, images: Float[Tensor, "i 3 h w"]) -> Float[Tensor, "i p c"]:
        """The tokens of normalised images."""
        c, layered = self.config, tower
        if c.readout == "pooled":
            return tower(images)[:, None]
        if c.layer == -1 and c.norm:
            x = tower.tokens(images)
        else:
            chooses: Any = layered
            x = chooses.tokens(images, layer=c.layer if c.layer != -1 else len(chooses.blocks) - 1)
        return x if c.cls else x[:, self.prefix :]

    def _measured(self, tower: ImageTower, resolution: int) -> tuple[Given, frozenset[str]]:
        """What comes out and what it depends on, seen on tensors without content."""
        reads, training = _Reads(self, tower), tower.training
        tower.eval()
        state = {n: t.detach().to("meta") for n, t in [*reads.named_parameters(), *reads.named_buffers()]}
        parameters = {n: state[n].requires_grad_() for n, _ in reads.named_parameters()}
        out = functional_call(reads, state, torch.empty(2, 3, resolution, resolution, device="meta"))
        with torch.enable_grad():
            found = torch.autograd.grad(out.sum(), list(parameters.values()), allow_unused=True)
        tower.train(training)
        unused = {n.removeprefix("tower.") for n, g in zip(parameters, found, strict=True) if g is None}
        tokens, width = out.shape[1:]
        patches = tokens - (self.prefix if self.config.cls and self.config.readout == "tokens" else 0)
        side = math.isqrt(patches)
        return Given(tokens, width, side if side * side == patches == tokens else 0), frozenset(unused)


class _Reads(nn.Module):
    def __init__(self, reading: ImageReading, tower: ImageTower) -> None:
        super().__init__()
        self.reading, self.tower = reading, tower

    def forward(self, images: Tensor) -> Tensor:
        with torch.enable_grad():
            return self.reading(self.tower, images)
