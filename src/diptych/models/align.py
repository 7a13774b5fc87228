"""ALIGN's dual encoder (Jia et al., 2021, arXiv:2102.05918): CLIP's, with the temperature itself as parameter."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diptych.models.two_tower import TwoTower, TwoTowerConfig


class AlignConfig(TwoTowerConfig):
    """Settings of a dual encoder with a raw temperature. `init_logit_scale` is still the first value of the logit
    scale's logarithm, by default 0: the temperature starts at 1, as in the paper.
    """

    init_logit_scale: float = 0.0

    def build(self, vocab_size: int) -> "Align":
        return Align(self, vocab_size)


class Align(TwoTower):
    """Two towers, and logits that are cosines divided by `temperature` (section 4.2).

    A raw temperature has a gradient that grows with its inverse square, where a logarithm's grows with its inverse.
    """

    config: AlignConfig

    def add_scale(self, log_scale: float) -> None:
        """Register `temperature`, at first exp(-log_scale)."""
        self.temperature = nn.Parameter(torch.tensor(math.exp(-log_scale)))

    @property
    def log_logit_scale(self) -> Float[Tensor, ""]:
        """The logarithm of the factor on cosines, 1 / temperature; differentiable."""
        return -self.temperature.log()

    @torch.no_grad()
    def after_step(self) -> None:
        """Hold the temperature at 1 / max_logit_scale or above, since below 0 the loss turns over. It has no top."""
        if self.temperature.requires_grad:
            self.temperature.clamp_(min=1 / self.config.max_logit_scale)
