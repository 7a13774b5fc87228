"""Contrastive and captioning loss from one forward pass (CoCa, Yu et al., 2022, arXiv:2205.01917, eq. 4).

The captions' loss is a mean over the tokens of all ranks. Each pair brings the sum over its own tokens, which is cached
and accumulated beside its vectors: neither micro-batches nor ranks change anything.
"""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.errors import ConfigError
from diptych.models.model import Model
from diptych.objectives.contrastive import Contrastive, ContrastiveConfig
from diptych.objectives.exchange import Exchange
from diptych.objectives.objective import Losses, ObjectiveConfig
from diptych.objectives.tiled_softmax import Duplicates
from diptych.objectives.token_loss import writing_loss, written_rows


class ContrastiveCaptioningConfig(ObjectiveConfig):
    """Settings of CoCa's objective.

    contrastive_weight, caption_weight  of the two losses; the paper has 1 and 2
    label_smoothing, duplicates, exchange  of the contrastive one, as in ContrastiveConfig
    caption_smoothing  share of each token's target spread evenly over the vocabulary
    """

    contrastive_weight: float = Field(default=1.0, ge=0)
    caption_weight: float = Field(default=2.0, ge=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    duplicates: Duplicates = "mask"
    exchange: Exchange = "auto"
    caption_smoothing: float = Field(default=0.0, ge=0, lt=1)

    def build(self, model: Model) -> "ContrastiveCaptioning":
        """The objective around `model`."""
        return ContrastiveCaptioning(self, model)


class ContrastiveCaptioning(Contrastive):
    """contrastive_weight InfoNCE + caption_weight (mean over tokens that bear loss of -log p(token | image, before)).

    Needs: `encode_pairs` (unit vectors, and what captions are predicted from), `head` and `log_logit_scale` of the
    model; images, tokens, lengths and ids of the batch. Parts: "i2t", "t2i"; "nll", in nats a token; "token_accuracy".
    Relation: with caption_weight 0 Contrastive; with contrastive_weight 0 CausalLM.
    """

    takes_patches: ClassVar[bool] = False
    writes: ClassVar[bool] = True

    def __init__(self, config: ContrastiveCaptioningConfig, model: Model) -> None:
        missing = [n for n in ("encode_pairs", "head") if not hasattr(model, n)]
        if missing:
            raise ConfigError(
                f"ContrastiveCaptioning must be given a model that embeds and writes (encode_pairs, head); got "
                f"{type(model).__name__} without {', '.join(missing)}. Use models.coca."
            )
        pairs = ContrastiveConfig(
            label_smoothing=config.label_smoothing, duplicates=config.duplicates, exchange=config.exchange
        )
        super().__init__(pairs, model)
        self.config = config

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """Unit vectors "image" and "text" (b, e); what `token_loss.written_rows` has of the captions."""
        model: Any = self.model
        image, text, said = model.encode_pairs(batch)
        rows = written_rows(said, model.head(), len(image), self.config.caption_smoothing)
        return {"image": image, "text": text, **rows}

    def loss(self, encoded: dict[str, Tensor], batch: Batch) -> Losses:
        """The loss from what `encode` returned; float32 whatever the autocast around it."""
        pairs = super().loss(encoded, batch)
        with torch.autocast(pairs.total.device.type, enabled=False):
            caption, said = writing_loss(encoded)
            total = self.config.contrastive_weight * pairs.total + self.config.caption_weight * caption
            parts = {"nll": said["nll"], "token_accuracy": said["foreseen"]}
        return Losses(total, pairs.count, pairs.parts | parts)
