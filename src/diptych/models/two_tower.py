"""The dual encoder: an image tower and a text tower that meet on the unit sphere, with a learned temperature."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from pydantic import Field, model_validator
from torch import Tensor, nn

from diptych.models.embedder import Embedder
from diptych.models.model import ModelConfig
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.tower import ImageTowerConfig, TextTowerConfig
from diptych.models.vision_transformer import VisionTransformerConfig


class TwoTowerConfig(ModelConfig):
    """Settings of a dual encoder.

    init_logit_scale  first value of the logit scale's logarithm: ln(1 / 0.07) in CLIP, ln 10 in SigLIP
    init_logit_bias   first value of the logit bias; None: no bias (CLIP). SigLIP's -10 is about ln(1 / batch)
    max_logit_scale   the scale itself (not its logarithm) is held in [1, max_logit_scale] after each step
    """

    image: ImageTowerConfig = VisionTransformerConfig()
    text: TextTowerConfig = TextTransformerConfig()
    embed_dim: int = Field(default=512, gt=0)
    init_logit_scale: float = math.log(1 / 0.07)
    init_logit_bias: float | None = None
    max_logit_scale: float = Field(default=100.0, ge=1)

    @model_validator(mode="after")
    def _is_a_logarithm(self) -> "TwoTowerConfig":
        if self.init_logit_scale > math.log(self.max_logit_scale) + 1e-6:
            raise ValueError(
                f"TwoTowerConfig.init_logit_scale must be a logarithm of at most ln max_logit_scale = "
                f"{math.log(self.max_logit_scale):.4f}; got {self.init_logit_scale}. For a scale of s, give ln s."
            )
        return self

    def build(self, vocab_size: int) -> "TwoTower":
        return TwoTower(self, vocab_size)


class TwoTower(Embedder):
    """`encode_*` are for training, `embed_*` and `score` for use: the same unit vectors in fp32, without gradient."""

    config: TwoTowerConfig

    def __init__(self, config: TwoTowerConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.image_tower = config.image.build(config.image_format.resolution, config.embed_dim)
        self.text_tower = config.text.build(vocab_size, config.context_length, config.embed_dim)
        self.add_scale(config.init_logit_scale)
        bias = config.init_logit_bias
        self.logit_bias = None if bias is None else nn.Parameter(torch.tensor(float(bias)))

    def add_scale(self, log_scale: float) -> None:
        """Register the temperature's parameter, from which `log_logit_scale` is read; at first it is `log_scale`."""
        self.log_logit_scale = nn.Parameter(torch.tensor(log_scale))

    def encode_image(
        self,
        images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"] | UInt8[Tensor, "b k c"],
        patch_index: Int64[Tensor, "b k"] | None = None,
        patch_grid: tuple[int, int] | None = None,
    ) -> Float[Tensor, "b e"]:
        """Unit vectors in fp32. Pixels are 0..255, of any size that the tower takes (progressive resizing).

        With `patch_index` and `patch_grid`, `images` are those patches alone that the tower is to look at.
        """
        if patch_index is None:
            return self.encode_from("image", self.image_vectors(images))
        return self.encode_from("image", self.image_tower(self.normalise(images), patch_index, patch_grid))

    def encode_text(self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, "b e"]:
        """Unit vectors in fp32."""
        return self.encode_from("text", self.text_vectors(tokens, lengths))

    def image_vectors(self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        """What the image tower returns: all of `encode_image` that a frozen tower needs to compute only once."""
        return self.image_tower(self.normalise(images))

    def text_vectors(self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, "b e"]:
        """What the text tower returns."""
        return self.text_tower(tokens, lengths)

    def encode_from(self, kind: Literal["image", "text"], vectors: Float[Tensor, "b e"]) -> Float[Tensor, "b e"]:
        """The rest of `encode_image` or `encode_text`, from the tower's vectors: unit length, fp32."""
        return F.normalize(vectors.float(), dim=-1)

    def decay_free(self) -> set[str]:
        """Position embeddings and probes of both towers; scale and bias have no dimension."""
        return {f"image_tower.{n}" for n in self.image_tower.decay_free()} | {
            f"text_tower.{n}" for n in self.text_tower.decay_free()
        }
