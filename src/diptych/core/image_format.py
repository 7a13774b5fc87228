"""How pixels must arrive for a model: travels with its weights, read by the decoder and by the model."""

from typing import Literal

from pydantic import Field, field_validator

from diptych.core.config import Config

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class ImageFormat(Config):
    """Side, resize rule and normalisation of the pixels that a model was trained on.

    `resize`: "crop" scales the short side to `resolution` and takes the centre (CLIP); "squash" ignores the aspect
    ratio (SigLIP); "pad" scales the long side and pads with `fill`. Resampling is always antialiased.
    """

    resolution: int = Field(default=224, gt=0)
    resize: Literal["crop", "squash", "pad"] = "crop"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    fill: tuple[int, int, int] = (255, 255, 255)

    @field_validator("std")
    @classmethod
    def _std(cls, std: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(std) <= 0:
            raise ValueError(f"ImageFormat.std must be above 0, for pixels are divided by it; got {std}.")
        return std
