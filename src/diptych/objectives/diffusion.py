"""Denoising: how well a model foresees, at a time and with a noise of each sample's own, what its schedule asks for."""

import torch

from diptych.core.batch import Batch
from diptych.core.errors import ConfigError
from diptych.models.model import Model
from diptych.objectives.objective import Losses, Objective, ObjectiveConfig


class DiffusionConfig(ObjectiveConfig):
    """Settings of denoising: none. Target, times, weights and dropping are the model's (`nn/noise_schedule.py`), which
    must paint with what it was trained with."""

    def build(self, model: Model) -> "Diffusion":
        """The objective around `model`."""
        return Diffusion(self, model)


class Diffusion(Objective):
    """The mean over samples of the squared error of the foreseen target (Ho et al., 2020, eq. 14; Salimans and Ho,
    2022; Esser et al., 2024, eq. 12), weighted by time where the schedule says so.

    Needs: a model whose forward gives errors and weights (latent_diffusion, prior, unclip). Parts: "mse", the error
    without weights. Uncoupled: draws are functions of each sample's key, so that pieces and ranks sum exactly.
    """

    def __init__(self, config: DiffusionConfig, model: Model) -> None:
        if not hasattr(model, "schedule"):
            raise ConfigError(
                f"Diffusion must be given a model that denoises; got {type(model).__name__}. "
                "Use models.latent_diffusion, prior or unclip."
            )
        super().__init__(model)
        self.config = config

    def forward(self, batch: Batch) -> Losses:
        errors, weights = self.model(batch, self.keys(batch))
        count = torch.full((), float(len(errors)), device=errors.device)
        return Losses((errors * weights).mean(), count, {"mse": errors.detach().mean()})
