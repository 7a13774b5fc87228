"""Next-token prediction: how well a model that writes foresees the tokens that bear loss."""

from typing import Any, ClassVar

import torch
from pydantic import Field

from diptych.core.batch import Batch
from diptych.core.errors import ConfigError
from diptych.models.model import Model
from diptych.objectives.objective import Losses, Objective, ObjectiveConfig
from diptych.objectives.token_loss import token_loss


class CausalLMConfig(ObjectiveConfig):
    """Settings of next-token prediction.

    label_smoothing  share of each target spread evenly over the vocabulary (BLIP: 0.1)
    z_loss           weight of log(Z)^2, which keeps logits from drifting (PaLM: 1e-4, Chameleon: 1e-5)
    """

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    z_loss: float = Field(default=0.0, ge=0)

    def build(self, model: Model) -> "CausalLM":
        """The objective around `model`."""
        return CausalLM(self, model)


class CausalLM(Objective):
    """The mean over tokens that bear loss of -log p(token | image, tokens before it).

    Needs: `predict` and `head` of the model (models/writer.py); tokens and lengths of the batch, and loss_mask where
    not every token bears loss. Parts: "nll" in nats a token, without smoothing; "token_accuracy", the share foreseen.
    Relation: with all tokens at once and no smoothing, torch's cross_entropy of the logits.
    """

    takes_cached: ClassVar[bool] = True
    writes: ClassVar[bool] = True

    def __init__(self, config: CausalLMConfig, model: Model) -> None:
        missing = [n for n in ("predict", "head") if not hasattr(model, n)]
        if missing:
            raise ConfigError(
                f"CausalLM must be given a model that writes (predict, head); got {type(model).__name__} without "
                f"{', '.join(missing)}. Use models.prefix_lm, captioner or language_model."
            )
        super().__init__(model)
        self.config = config
        if getattr(model, "image_tokens", 1) == 0:
            self.uses = frozenset({"text"})

    def forward(self, batch: Batch) -> Losses:
        model: Any = self.model
        hidden, targets, _ = model.predict(batch)
        weight, bias = model.head()
        summed, each = token_loss(hidden, weight, bias, targets, self.config.label_smoothing, self.config.z_loss)
        count = torch.full((), float(max(len(targets), 1)), device=hidden.device)
        parts = {"nll": each.nll.sum() / count, "token_accuracy": each.top.sum() / count}
        return Losses(summed / count, torch.full_like(count, float(len(targets))), parts)
