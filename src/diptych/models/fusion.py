"""What ALBEF and BLIP have in common: an image tower whose tokens a text side attends to, vectors of both to compare,
and a head that judges whether they belong together.
"""

import math
from abc import abstractmethod
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from pydantic import Field
from torch import Tensor, nn

from diptych.models.embedder import Embedder
from diptych.models.image_reading import ImageReading, ImageReadingConfig
from diptych.models.model import ModelConfig
from diptych.models.pair_scores import log_odds
from diptych.models.sees_images import ReadsTower
from diptych.models.tower import ImageTowerConfig
from diptych.models.vision_transformer import VisionTransformer, VisionTransformerConfig
from diptych.nn.block import BlockConfig
from diptych.nn.packing import to_longest

BERT_BASE = BlockConfig(width=768, depth=12, heads=12, norm_position="post", norm_eps=1e-12)


class FusionConfig(ModelConfig):
    """Base of the settings of models that fuse.

    image             the tower; its tokens after its last norm are attended to
    embed_dim         width of the space in which images and texts are compared
    image_norm        a norm on an image's pooled token before it is projected there ("batch": clip:tiny's)
    scored_by         what `score` gives: the "similarity", a cosine, or the "matching" head's log-odds
    init_logit_scale  first value of the logit scale's logarithm, ln(1 / 0.07)
    max_logit_scale   the scale itself is held in [1, max_logit_scale] after each step; the papers hold it in [2, 1000]
    """

    abstract: ClassVar[bool] = True
    image: ImageTowerConfig = VisionTransformerConfig(norm_pre=False, patch_bias=True, norm_eps=1e-6)
    embed_dim: int = Field(default=256, gt=0)
    image_norm: Literal["none", "batch", "layer"] = "none"
    scored_by: Literal["similarity", "matching"] = "similarity"
    init_logit_scale: float = math.log(1 / 0.07)
    max_logit_scale: float = Field(default=1000.0, ge=1)
    context_length: int = Field(default=30, gt=0)


class FusionTower(ReadsTower):
    """An image tower of which all tokens are read. A vision transformer keeps its last norm, and nothing behind it."""

    config: FusionConfig

    def __init__(self, config: FusionConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        side = config.image_format.resolution
        self.image_tower = config.image.build(side, config.embed_dim)
        if isinstance(self.image_tower, VisionTransformer):
            self.image_tower.projection = self.image_tower.map_pool = None
        self.reading = ImageReading(ImageReadingConfig(), self.image_tower, side)
        self.image_tokens = self.reading.given.tokens


class Fusion(Embedder, FusionTower):
    """Embeds images and texts, and judges pairs. `width`: of the text's states."""

    def __init__(self, config: FusionConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.log_logit_scale = nn.Parameter(torch.tensor(config.init_logit_scale))
        seen = self.reading.given.width
        norms: dict[str, Any] = {"none": nn.Identity, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
        self.image_norm = norms[config.image_norm](seen)
        self.image_projection = nn.Linear(seen, config.embed_dim)

    def add_heads(self, width: int) -> None:
        """What stands on a text's states, of `width`; called once they are known."""
        self.text_projection = nn.Linear(width, self.config.embed_dim)
        self.matching_head = nn.Linear(width, 2)

    @abstractmethod
    def unit_text(self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, "b e"]:
        """Unit vectors of texts that are read alone, in float32."""

    @abstractmethod
    def matching_logits(
        self, features: Float[Tensor, "b p c"], tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]
    ) -> Float[Tensor, "b 2"]:
        """Logits of "no match" and "match" of each pair, in float32."""

    def unit_image(self, features: Float[Tensor, "b p c"]) -> Float[Tensor, "b e"]:
        """Unit vectors of images, in float32, from their CLS token, or where the tower has none the mean of all."""
        pooled = features[:, 0] if self.reading.prefix else features.mean(1)
        return F.normalize(self.image_projection(self.image_norm(pooled)).float(), dim=-1)

    def unit_of_state(self, state: Float[Tensor, "b d"]) -> Float[Tensor, "b e"]:
        """Unit vectors of texts, in float32, from the state of each one's first token."""
        return F.normalize(self.text_projection(state).float(), dim=-1)

    def encode_image(self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        """Unit vectors in fp32."""
        return self.unit_image(self.image_features(images))

    def encode_text(self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, "b e"]:
        """Unit vectors in fp32."""
        return self.unit_text(tokens, lengths)

    @torch.no_grad()
    def score(
        self, images: UInt8[Tensor, "i 3 h w"], tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]
    ) -> Float[Tensor, "i b"]:
        """Of every image and every text: the cosine, or the matching head's log-odds (`scored_by`)."""
        if self.config.scored_by == "similarity":
            return super().score(images, tokens, lengths)
        return self.match(images, tokens, lengths)

    @torch.no_grad()
    def match(
        self, images: UInt8[Tensor, "i 3 h w"], tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]
    ) -> Float[Tensor, "i b"]:
        """The matching head's log-odds of every image and every text."""
        features, (tokens, lengths) = self.image_features(images), to_longest(tokens, lengths)
        return log_odds(self.matching_logits, features, tokens.to(features.device), lengths)
