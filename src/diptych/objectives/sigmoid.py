"""The sigmoid loss of SigLIP over the global batch: every image with every text is one yes-or-no question.

Across ranks. Rank r scores its own b images against all g texts and divides by b, so L = (1/W) sum_r L_r, and the
gradient is exact for the same reason as in `objectives/contrastive.py`; the image rows need not be gathered at all.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import softplus

from diptych.core.distributed import all_sum, gather_with_grad, rank, world_size
from diptych.core.errors import ConfigError
from diptych.models.model import Model
from diptych.objectives.contrastive import Duplicates, PairObjective
from diptych.objectives.objective import Losses, ObjectiveConfig


class SigmoidConfig(ObjectiveConfig):
    """SigLIP's loss. The model must have a `logit_bias` (the paper starts it at -10, the scale at 10)."""

    duplicates: Duplicates = "mask"

    def build(self, model: Model) -> "Sigmoid":
        """The objective around `model`."""
        return Sigmoid(self, model)


class Sigmoid(PairObjective):
    """-(1/g) sum_ij log sigmoid(z_ij (s <i, t> + b)), with z = 1 for true pairs and -1 for all others.

    Zhai et al. 2023 (arXiv:2303.15343, section 3.2): summed over columns, averaged over rows. Duplicates are left out
    of the sum ("mask"), counted as true pairs ("positives"), or counted as false ones ("ignore").
    """

    def __init__(self, config: SigmoidConfig, model: Model) -> None:
        super().__init__(model, config.duplicates)
        if not isinstance(getattr(model, "logit_bias", None), Tensor):
            raise ConfigError(
                "the sigmoid objective must be given a model with logit_bias; got one without. Without it the first "
                "steps only push everything apart. Give the model one, started at -10 or at -ln(batch)."
            )

    def loss_of_embeds(
        self, image: Float[Tensor, "b e"], text: Float[Tensor, "b e"], same: Bool[Tensor, "b g"] | None
    ) -> Losses:
        """The mean over this rank's images of the sum over all texts; parts "positive" and "negative"."""
        b, offset = len(image), rank() * len(image)
        all_text = text if world_size() == 1 else gather_with_grad(text)
        logits = self.logit_scale() * image @ all_text.T + self.logit_bias()  # (b, g)
        true = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
        true.diagonal(offset)[:b] = True
        if same is not None and self.duplicates == "positives":
            true = same
        # -log sigmoid(z x) = softplus(-z x), which neither overflows nor loses its tail
        terms = softplus(torch.where(true, -logits, logits))
        if same is not None and self.duplicates == "mask":
            terms = terms.masked_fill(same & ~true, 0)
        total = terms.sum() / b
        positive = terms.detach().masked_fill(~true, 0).sum() / b
        count = torch.tensor(float(b), device=image.device)
        return Losses(total, count, {"positive": positive, "negative": total.detach() - positive})

    def chance(self, pairs: int, same: Bool[Tensor, "b g"] | None) -> dict[str, float | Tensor]:
        """The loss of the best constant answer, the share p of true questions: of n true and m false ones a row,
        n ln((n + m) / n) + m ln((n + m) / m). Without duplicates n = 1 and m = g - 1: about ln g + 1.
        """
        alike = 1.0 if same is None or self.duplicates == "ignore" else float(all_sum(same.sum())) / pairs
        true, false = alike if self.duplicates == "positives" else 1.0, pairs - alike
        rest = false * math.log((true + false) / false) if false > 0 else 0.0
        return {"chance_loss": true * math.log((true + false) / true) + rest}

    def logit_bias(self) -> Float[Tensor, ""]:
        """What is added to every logit, in float32 and differentiable."""
        bias: Tensor = self.model.logit_bias  # type: ignore[assignment]
        return bias.float().reshape(())
