"""Next-token prediction over words and images alike (Chameleon team, 2024, arXiv:2405.09818, section 2.3)."""

from typing import ClassVar

import torch
from pydantic import Field

from diptych.core.batch import Batch
from diptych.core.errors import ConfigError
from diptych.models.chameleon import Chameleon
from diptych.models.model import Model
from diptych.nn.draws import happens
from diptych.objectives.objective import Losses, Objective, ObjectiveConfig
from diptych.objectives.token_loss import token_loss


class MixedModalConfig(ObjectiveConfig):
    """Settings of the loss of early fusion.

    text_weight, image_weight  of each word and of each token of an image; a record of an image may have far more of
                               the latter
    z_loss                     weight of log(Z)^2, without which logits drift (the paper: 1e-5)
    image_first                chance that an image stands before its text rather than behind it, where the data does
                               not say
    """

    text_weight: float = Field(default=1.0, ge=0)
    image_weight: float = Field(default=1.0, ge=0)
    z_loss: float = Field(default=1e-5, ge=0)
    image_first: float = Field(default=0.5, ge=0, le=1)

    def build(self, model: Model) -> "MixedModal":
        """The objective around `model`."""
        return MixedModal(self, model)


class MixedModal(Objective):
    """The weighted mean over all tokens but each record's first of -log p(token | tokens before it) + z_loss log(Z)^2.

    Words that bear no loss (questions) count for nothing; all of an image bears loss, its begin and end too.
    Needs: a model of models/chameleon.py; tokens and lengths of the batch; records with any number of images, or none.
    Parts: "nll" of words and "image" of images' tokens, in nats a token; "log_z", the mean of log(Z).
    Relation: with equal weights and no z-loss, torch's cross_entropy of all logits.
    """

    takes_cached: ClassVar[bool] = True
    writes: ClassVar[bool] = True

    def __init__(self, config: MixedModalConfig, model: Model) -> None:
        if not isinstance(model, Chameleon):
            raise ConfigError(
                f"MixedModal must be given a model whose words and images are one sequence; got "
                f"{type(model).__name__}. Use models.chameleon."
            )
        super().__init__(model)
        self.config = config

    def forward(self, batch: Batch) -> Losses:
        model, c = self.model, self.config
        assert isinstance(model, Chameleon)
        first = happens(self.keys(batch), "image first", c.image_first).cpu()  # shapes are decided on the host
        found = model.predict_mixed(batch, first)
        weights = c.text_weight * found.text + c.image_weight * found.image
        weight, bias = model.language.head()
        summed, each = token_loss(found.hidden, weight, bias, found.targets, 0.0, c.z_loss, weights)
        count = weights.sum()

        def mean(x: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
            return (x * of).sum() / of.sum().clamp_min(1)

        parts = {"nll": mean(each.nll, found.text), "image": mean(each.nll, found.image)}
        parts["log_z"] = mean(each.log_z, found.text + found.image)
        return Losses(summed / count.clamp_min(1e-6), count, parts)
