"""BLIP's pretraining (Li et al., 2022, arXiv:2201.12086, section 3.2): contrast, matching, and writing the text.

Teacher, queue and hard negatives are ALBEF's (`objectives/momentum.py`). Writing does not couple pairs: it is done when
a pair is encoded. Matching reads texts beside other pairs' images, chosen by similarity, so its pass through the text
side is part of the loss, over image tokens and token ids that `encode` hands out: cached pieces give exactly the
gradient of the whole batch.
"""

from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from diptych.core.batch import Batch
from diptych.models.model import Model
from diptych.objectives.momentum import MomentumConfig, MomentumObjective
from diptych.objectives.token_loss import writing_loss, written_rows


class BlipPretrainingConfig(MomentumConfig):
    """Settings of BLIP's three losses, whose weighted sum is minimised; the paper's weights are 1.

    writing            weight of writing the text
    writing_smoothing  share of each token's target spread evenly over the vocabulary. transformers' classes have 0
    queue              57,600 in the paper
    """

    queue: int = Field(default=57_600, ge=0)
    writing: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    writing_smoothing: float = Field(default=0.1, ge=0, lt=1)

    def build(self, model: Model) -> "BlipPretraining":
        """The objective around `model`."""
        return BlipPretraining(self, model)


class BlipPretraining(MomentumObjective):
    """Contrast, matching and writing. Parts: "contrast", "matching", "nll" (nats a token, without smoothing); the
    shares that are right of pairs judged, "matched", and of tokens, "foreseen".
    """

    writes: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("written", "head")
    third_name: ClassVar[str] = "writing"
    config: BlipPretrainingConfig

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """A row a pair each of: "image" and "text" (b e), unit vectors; the teacher's, "image_key" and "text_key";
        "features" (b p c), what texts attend to, "tokens" (b context) and "lengths", for matching; "draw"; what
        `token_loss.written_rows` has of writing the text."""
        model: Any = self.model
        features, tokens, lengths = self.pairs(batch)
        keys = self.keys_of(batch)
        keys.pop("image_tokens", None)
        return {
            "image": model.unit_image(features),
            "text": model.unit_text(tokens, lengths),
            "tokens": self.widened(tokens),
            **keys,
            **self.shared_rows(batch, features),
            **written_rows(model.written(features, batch), model.head(), len(features), self.config.writing_smoothing),
        }

    def third(self, encoded: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        loss, parts = writing_loss(encoded)
        return self.config.writing * loss, parts
