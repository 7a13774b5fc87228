"""What teaches an image codec: images there and back, and what of the loss is the codec's own affair.

One objective for all codecs: pixels are rated here; the codebook's loss, a KL divergence, a likelihood of their own or
the features of a teacher are terms that the model names, with their weights (`models/codecs/codec.py: Autoencoded`).
"""

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.errors import ConfigError, DataError
from diptych.models.codecs.codec import Codec
from diptych.models.model import Model
from diptych.nn.codec_blocks import multiscale_error
from diptych.objectives.objective import Losses, Objective, ObjectiveConfig


class CodecObjectiveConfig(ObjectiveConfig):
    """Settings of what rates pixels, where the codec does not rate them itself.

    error         "l1" (latent diffusion), or "l2"
    scales        at how many sides it is taken, each half of the one before, and averaged
    pixel_weight  of it
    """

    error: Literal["l1", "l2"] = "l1"
    scales: int = Field(default=1, ge=1)
    pixel_weight: float = Field(default=1.0, ge=0)

    def build(self, model: Model) -> "CodecObjective":
        """The objective around `model`."""
        return CodecObjective(self, model)


class CodecObjective(Objective):
    """pixel_weight error(found, wanted) + the sum of the codec's own terms, a mean over images.

    Needs: a codec with `forward`; images of the batch. Parts: "pixels", the error that is minimised; "l1", the mean
    absolute error in shares of the range of pixels, whatever is minimised; the codec's terms, not weighted.
    Nothing couples images: pieces and ranks change nothing. A codebook moves once a step, by what all ranks have seen.
    """

    uses = frozenset({"image"})
    couples_pairs: ClassVar[bool] = False

    def __init__(self, config: CodecObjectiveConfig, model: Model) -> None:
        if not isinstance(model, Codec):
            raise ConfigError(
                f"CodecObjective must be given an image codec; got {type(model).__name__}. Use one of models.codecs."
            )
        super().__init__(model)
        self.config = config

    def forward(self, batch: Batch) -> Losses:
        if batch.images is None or not len(batch.images):
            raise DataError("a codec learns from images, and this batch has none. Leave records without images out.")
        keys = self.keys(batch)
        if batch.image_record is not None and len(batch.images) != batch.size:
            keys = keys[batch.image_record.to(keys.device)]
        out = self.model(batch.images, keys)
        total, parts = torch.zeros((), device=batch.images.device), dict[str, Tensor]()
        with torch.autocast(batch.images.device.type, enabled=False):
            if out.found is not None and out.wanted is not None:
                if not out.rated:
                    c = self.config
                    pixels = multiscale_error(out.found, out.wanted, c.scales, c.error == "l2").mean()
                    total, parts["pixels"] = total + c.pixel_weight * pixels, pixels.detach()
                parts["l1"] = (out.found.detach() - out.wanted).abs().mean()
            for name, term in out.terms.items():
                value = term.value.float().mean()
                total, parts[name] = total + term.weight * value, value.detach()
        return Losses(total, torch.full_like(total, float(len(batch.images))).detach(), parts)

    def health(self, encoded: dict[str, Tensor], batch: Batch | None = None) -> dict[str, Any]:
        """What the codec says of itself: "codebook_use" and "perplexity" of one with a codebook."""
        model: Any = self.model
        return model.health()
