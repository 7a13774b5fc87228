"""The sigmoid loss of SigLIP over the global batch: every image with every text is one yes-or-no question.

Across ranks. Rank r scores its own b images against all g texts and divides by b, so L = (1/W) sum_r L_r, and the
gradient is exact for the same reason as in `objectives/contrastive.py`. How it is computed: `tiled_sigmoid.py`.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from diptych.core.errors import ConfigError
from diptych.models.model import Model
from diptych.objectives.contrastive import PairObjective
from diptych.objectives.exchange import Exchange
from diptych.objectives.objective import Losses, ObjectiveConfig
from diptych.objectives.same_pairs import SamePairs
from diptych.objectives.tiled_sigmoid import SigmoidPairs
from diptych.objectives.tiled_softmax import Duplicates
from diptych.objectives.tiles import Wanted, with_gradient


class SigmoidConfig(ObjectiveConfig):
    """SigLIP's loss. The model must have a `logit_bias` (the paper starts it at -10, the scale at 10). `exchange` is
    how texts come to other ranks ("gather", "ring", or "auto": by their size).
    """

    duplicates: Duplicates = "mask"
    exchange: Exchange = "auto"

    def build(self, model: Model) -> "Sigmoid":
        """The objective around `model`."""
        return Sigmoid(self, model)


class Sigmoid(PairObjective):
    """-(1/g) sum_ij log sigmoid(z_ij (s <i, t> + b)), with z = 1 for true pairs and -1 for all others.

    Zhai et al. 2023 (arXiv:2303.15343, section 3.2): summed over columns, averaged over rows. Duplicates are left out
    of the sum ("mask"), counted as true pairs ("positives"), or counted as false ones ("ignore").
    """

    def __init__(self, config: SigmoidConfig, model: Model) -> None:
        super().__init__(model, config.duplicates, config.exchange)
        if not isinstance(getattr(model, "logit_bias", None), Tensor):
            raise ConfigError(
                "the sigmoid objective must be given a model with logit_bias; got one without. Without it the first "
                "steps only push everything apart. Give the model one, started at -10 or at -ln(batch)."
            )

    def loss_of_embeds(self, image: Float[Tensor, "b e"], text: Float[Tensor, "b e"], same: SamePairs | None) -> Losses:
        """The mean over this rank's images of the sum over all texts; parts "positive" and "negative"."""
        scale, bias = self.logit_scale(), self.logit_bias()
        found = SigmoidPairs(self.pairs(image, text, same, bias), self.duplicates).compute(
            Wanted.of(image, text, scale, bias)
        )
        gradients = [(image, found.image), (text, found.text), (scale, found.scale), (bias, found.bias)]
        total = with_gradient(found.positive + found.negative, gradients)
        count = torch.full((), float(len(image)), device=image.device)  # does not wait for the device
        return Losses(total, count, {"positive": found.positive, "negative": found.negative})

    def chance(self, pairs: int, same: SamePairs | None) -> dict[str, float | Tensor]:
        """The loss of the best constant answer, the share p of true questions: of n true and m false ones a row,
        n ln((n + m) / n) + m ln((n + m) / m). Without duplicates n = 1 and m = g - 1: about ln g + 1.
        """
        alike = 1.0 if same is None or self.duplicates == "ignore" else float(same.counts().mean())
        true, false = alike if self.duplicates == "positives" else 1.0, pairs - alike
        rest = false * math.log((true + false) / false) if false > 0 else 0.0
        return {"chance_loss": true * math.log((true + false) / true) + rest}

    def logit_bias(self) -> Float[Tensor, ""]:
        """What is added to every logit, in float32 and differentiable."""
        bias: Tensor = self.model.logit_bias  # type: ignore[assignment]
        return bias.float().reshape(())
