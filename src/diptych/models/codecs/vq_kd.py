"""VQ-KD, the tokenizer of BEiT v2 and BEiT-3 (Peng et al., 2022, arXiv:2208.06366, section 2.2): codes from which the
features of a teacher can be told, not the pixels. What looks alike but means another thing gets other codes."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from pydantic import Field
from torch import Tensor, nn

from diptych.core.errors import ConfigError
from diptych.models.codecs.codec import Autoencoded, CodecConfig, ImageTokenizer, Term
from diptych.models.image_reading import ImageReading, ImageReadingConfig
from diptych.models.tower import ImageTowerConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.nn.block import BlockConfig, build_blocks, init_default, through_blocks
from diptych.nn.norm import build_norm
from diptych.nn.quantizer import VectorQuantizer, VectorQuantizerConfig

PATCHES = ImageReadingConfig(cls=False)
VIT = VisionTransformerConfig(pooling="mean", norm_pre=False, patch_bias=True, projection="none")


class VQKDConfig(CodecConfig):
    """Settings of VQ-KD. `image_format` is the teacher's, whose mean and std both towers are shown.

    image         what sees: its patches' tokens become codes
    quantizer     the paper's: 8192 codes of 32 numbers, on the unit sphere, a moving average, commitment 1, k-means
    decoder       blocks that tell the teacher's features from codes
    teacher       a frozen tower, whose tokens are told: from another model by parts={"teacher": "FOLDER#image_tower"}
    teacher_side  the side at which it is shown images, so that its grid is that of the codes; 0: as they are
    embed_dim     of the teacher's projection, which nothing here reads: it must fit its weights
    """

    image: ImageTowerConfig = VIT
    quantizer: VectorQuantizerConfig = VectorQuantizerConfig(
        codes=8192, width=32, distance="cosine", update="ema", decay=0.99, beta=1.0, kmeans=True
    )
    decoder: BlockConfig = BlockConfig(width=768, depth=3, heads=12)
    teacher: ImageTowerConfig = VisionTransformerConfig()
    teacher_side: int = Field(default=0, ge=0)
    embed_dim: int = Field(default=512, gt=0)

    def build(self, vocab_size: int = 0) -> "VQKD":
        return VQKD(self, vocab_size)


class VQKD(ImageTokenizer):
    """Tower, a small MLP with tanh, codes; and, for training alone, blocks and an MLP that foresee the teacher's
    tokens. It paints nothing."""

    config: VQKDConfig

    def __init__(self, config: VQKDConfig, vocab_size: int = 0) -> None:
        super().__init__(config, vocab_size)
        c = self.config
        side, seen = c.image_format.resolution, c.teacher_side or c.image_format.resolution
        width = getattr(c.image, "width", c.embed_dim)
        self.image_tower = c.image.build(side, width)
        self.reading = ImageReading(PATCHES, self.image_tower, side)
        self.teacher = c.teacher.build(seen, c.embed_dim)
        self.teaching = ImageReading(PATCHES, self.teacher, seen)
        mine, theirs = self.reading.given, self.teaching.given
        if mine.tokens != theirs.tokens or not mine.side:
            raise ConfigError(
                f"VQKDConfig.teacher must have as many patches as image, in a square; got {theirs.tokens} and "
                f"{mine.tokens}. Set teacher_side (the side at which it is shown images), or another patch size."
            )
        self.grid, self.codebook_size = (mine.side, mine.side), c.quantizer.codes
        self.to_codebook = _mlp(mine.width, c.quantizer.width)
        self.quantizer = VectorQuantizer(c.quantizer)
        self.from_codebook = nn.Linear(c.quantizer.width, c.decoder.width)
        self.position_embed = nn.Parameter(torch.randn(mine.tokens, c.decoder.width) * c.decoder.width**-0.5)
        self.blocks = build_blocks(c.decoder)
        self.norm_post = build_norm(c.decoder.norm, c.decoder.width, c.decoder.norm_eps)
        self.to_teacher = _mlp(c.decoder.width, theirs.width)
        init_default(self.blocks)

    def forward(
        self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"], keys: Int64[Tensor, " b"]
    ) -> Autoencoded:
        pixels = self.at_side(images)
        found = self.quantizer(self._vectors(pixels))
        told, wanted = self.features_of(found.vectors).float(), self.taught(pixels).float()
        away = 1 - F.cosine_similarity(told, wanted, dim=-1).mean(1)
        return Autoencoded(None, None, {"away": Term(away), "codebook": Term(found.loss)})

    def features_of(self, vectors: Float[Tensor, "b n d"]) -> Float[Tensor, "b n c"]:
        """The teacher's tokens as codes' vectors tell them."""
        x = self.from_codebook(vectors)
        x = x + self.position_embed.to(x.dtype)
        return self.to_teacher(self.norm_post(through_blocks(self.blocks, x)))

    @torch.no_grad()
    def taught(self, pixels: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b n c"]:
        """The teacher's tokens of pixels in 0..1."""
        side = self.config.teacher_side
        if side and side != pixels.shape[-1]:
            pixels = F.interpolate(pixels, (side, side), mode="bicubic", antialias=True, align_corners=False)
        return self.teaching(self.teacher, self._normalised(pixels))

    @torch.no_grad()
    def codes(self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"]) -> Int64[Tensor, "b n"]:
        return self.quantizer.nearest(self.quantizer.scaled(self._vectors(self.at_side(images)).float()))

    def decay_free(self) -> set[str]:
        free = {f"image_tower.{n}" for n in self.image_tower.decay_free()} | {"position_embed"}
        return free | ({"quantizer.codebook"} if isinstance(self.quantizer.codebook, nn.Parameter) else set())

    def after_step(self) -> None:
        self.quantizer.after_step()

    def health(self) -> dict[str, float]:
        return self.quantizer.seen.health()

    def _vectors(self, pixels: Tensor) -> Tensor:
        return self.to_codebook(self.reading(self.image_tower, self._normalised(pixels)))

    def _normalised(self, pixels: Any) -> Tensor:
        found: Tensor = (pixels - self.pixel_mean) / self.pixel_std
        return found


def _mlp(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, out))
