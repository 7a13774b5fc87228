"""BLIP's pretraining (Li et al., 2022, arXiv:2201.12086, section 3.2): contrast, matching, and writing the text.

Teacher, queue and hard negatives are ALBEF's (`objectives/momentum.py`). Writing does not couple pairs: it is done when
a pair is encoded. Matching reads texts beside other pairs' images, chosen by similarity, so its pass through the text
side is part of the loss, over image tokens and token ids that `encode` hands out: cached pieces give exactly the
gradient of the whole batch.
"""

from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.distributed import all_sum, world_size
from diptych.models.model import Model
from diptych.objectives.matching import of_all
from diptych.objectives.momentum import MomentumConfig, MomentumObjective
from diptych.objectives.token_loss import token_loss


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
        "features" (b p c), what texts attend to, "tokens" (b context) and "lengths", for matching; "draw"; "written",
        equal shares of the summed loss of writing, whose sum alone has a meaning; "nll", "foreseen" and "targets", each
        text's own sums."""
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
            **self._written(features, batch),
        }

    def judge(
        self, encoded: dict[str, Tensor], features: Tensor, text: Tensor, lengths: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n 2"]:
        model: Any = self.model
        rows = of_all(encoded["tokens"])[text]
        if lengths.device.type == "cpu":  # elsewhere to know the longest would be to wait
            rows = rows[:, : max(int(lengths.max()), 1)]
        return model.matching_logits(features, rows, lengths)

    def third(self, encoded: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        everyone = world_size() / all_sum(encoded["targets"].detach().sum()).clamp_min(1)
        parts = {"nll": encoded["nll"].sum() * everyone, "foreseen": encoded["foreseen"].sum() * everyone}
        return self.config.writing * encoded["written"].sum() * everyone, parts

    def _written(self, features: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The loss of writing each text, summed over its tokens that bear loss."""
        model: Any = self.model
        hidden, targets, record = model.written(features, batch)
        weight, bias = model.head()
        summed, each = token_loss(hidden, weight, bias, targets, self.config.writing_smoothing)
        b = len(features)
        zeros = torch.zeros(b, device=hidden.device)
        return {
            "written": summed.expand(b) / b,
            "nll": zeros.index_add(0, record, each.nll),
            "foreseen": zeros.index_add(0, record, each.top),
            "targets": zeros.index_add(0, record, torch.ones_like(each.nll)),
        }
