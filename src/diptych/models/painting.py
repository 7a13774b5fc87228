"""How an image is painted: what models that paint share of settings and of chance."""

from typing import Literal

import torch
from jaxtyping import Int64
from pydantic import Field
from torch import Tensor

from diptych.core.config import Config
from diptych.core.seeds import folds


class Painting(Config):
    """How images are painted. What a model has no use for, it leaves alone.

    seed         of all that is drawn; the i-th text's draws are a function of (seed, first + i), whatever is beside it
    first        number of the first text, where many are painted batch by batch
    guidance     how much further than without the text to go (Ho and Salimans, 2022): 1 is the model as it is; None:
                 what its settings say
    steps        of the sampler; 0: what the model's settings say
    sampler      of a diffusion model; "": what its settings say
    temperature, top_k, top_p  of the codes that are drawn; 0 and 1 mean all of them
    """

    seed: int = 0
    first: int = Field(default=0, ge=0)
    guidance: float | None = Field(default=None, ge=0)
    steps: int = Field(default=0, ge=0)
    sampler: Literal["", "ddim", "ddpm", "euler"] = ""
    temperature: float = Field(default=1.0, gt=0)
    top_k: int = Field(default=0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)

    def keys(self, count: int, device: torch.device) -> Int64[Tensor, " b"]:
        """What decides the draws of `count` texts (nn/draws.py)."""
        found = folds((self.seed, "paint"), range(self.first, self.first + count))
        return torch.tensor(found, dtype=torch.int64, device=device)
