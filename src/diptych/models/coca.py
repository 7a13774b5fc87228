"""CoCa (Yu et al., 2022, arXiv:2205.01917): contrastive vectors and captions from one forward pass."""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from pydantic import Field, model_validator
from torch import Tensor, nn

from diptych.core.batch import Batch
from diptych.models.caption_decoder import ImageHalf, TextHalf
from diptych.models.captioner import padded_rows, seen_by_each
from diptych.models.embedder import Embedder
from diptych.models.image_reading import ImageReading, ImageReadingConfig
from diptych.models.model import ModelConfig
from diptych.models.sees_images import ReadsTower
from diptych.models.tower import ImageTowerConfig
from diptych.models.vision_transformer import VisionTransformer, VisionTransformerConfig
from diptych.models.writer import NextTokens, State, Writer, note_read, reading_plan, text_of
from diptych.nn.block import BlockConfig
from diptych.nn.cache import Cache
from diptych.nn.mask import MaskPlan
from diptych.nn.norm import build_norm
from diptych.nn.pool import AttentionPooler, build_projection
from diptych.nn.splice import Splice


class CoCaConfig(ModelConfig):
    """Settings of CoCa.

    embed_dim     of the contrastive vectors
    text, decoder the two halves of the text side: blocks that see text alone, and layers that see the image too
    pooling       how the image's tokens become what is read of it. "cascade": `queries` learned queries attend to the
                  image, one more attends to what they found and is the contrastive one (the paper); "parallel": it
                  attends to the image too; "legacy": the first of the queries is the contrastive one, and the others
                  are read (open_clip)
    queries       learned queries, the contrastive one counted in "legacy" only
    pooler_heads  heads of their attention
    cls_mask      "legacy": the CLS sees the first padding token, as open_clip's released weights need it
    pad_id        of that padding token
    init_logit_scale, max_logit_scale  as in TwoTowerConfig
    """

    image: ImageTowerConfig = VisionTransformerConfig()
    embed_dim: int = Field(default=512, gt=0)
    text: BlockConfig = BlockConfig(width=512, depth=12, heads=8)
    decoder: BlockConfig = BlockConfig(width=512, depth=12, heads=8)
    pooling: Literal["cascade", "parallel", "legacy"] = "cascade"
    queries: int = Field(default=256, ge=1)
    pooler_heads: int = Field(default=8, ge=1)
    cls_mask: Literal["correct", "legacy"] = "correct"
    pad_id: int = Field(default=0, ge=0)
    context_length: int = Field(default=76, gt=0)
    init_logit_scale: float = math.log(1 / 0.07)
    max_logit_scale: float = Field(default=100.0, ge=1)

    @model_validator(mode="after")
    def _halves_fit(self) -> "CoCaConfig":
        if self.text.width != self.decoder.width:
            raise ValueError(
                f"CoCaConfig.decoder.width must be that of text, whose states it goes on from; got "
                f"{self.decoder.width} and {self.text.width}. Make them equal."
            )
        for name, half in (("text", self.text), ("decoder", self.decoder)):
            if half.cross_attention != "none":
                raise ValueError(
                    f"CoCaConfig.{name}.cross_attention must be 'none', for its layers have blocks of their own for "
                    f"that; got {half.cross_attention!r}. Leave it out."
                )
        if self.text.width % self.pooler_heads:
            raise ValueError(
                f"CoCaConfig.pooler_heads must divide text.width; got {self.pooler_heads} and {self.text.width}."
            )
        if self.pooling == "legacy" and self.queries < 2:
            raise ValueError("CoCaConfig.queries must be at least 2 with pooling 'legacy': one is the contrastive one.")
        return self

    def build(self, vocab_size: int) -> "CoCa":
        return CoCa(self, vocab_size)


class Both(NamedTuple):
    """What one forward pass gives: unit vectors of images and texts, and what each target is predicted from."""

    image: Float[Tensor, "b e"]
    text: Float[Tensor, "b e"]
    said: NextTokens


class CoCa(ReadsTower, Embedder, Writer):
    """Embeds like a dual encoder and writes like a captioner; `score` is the cosine, the likelihood has its own name.

    image_tower -> pooler -> tokens that the decoder reads; pooler_contrastive -> projection -> vector. Of a vision
    transformer the last norm and the projection are left out: the poolers have their own.
    """

    config: CoCaConfig

    def __init__(self, config: CoCaConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        c, side, width = config, config.image_format.resolution, config.text.width
        self.image_tower = c.image.build(side, c.embed_dim)
        if isinstance(self.image_tower, VisionTransformer):
            self.image_tower.norm_post = nn.Identity()
            self.image_tower.projection = self.image_tower.map_pool = None
        self.reading = ImageReading(ImageReadingConfig(), self.image_tower, side)
        given = self.reading.given
        self.pooler = AttentionPooler(c.queries, width, given.width, c.pooler_heads)
        self.image_tokens = c.queries - (c.pooling == "legacy")
        if c.pooling == "legacy":
            self.pooler_contrastive = None
        else:
            context = width if c.pooling == "cascade" else given.width
            self.pooler_contrastive = AttentionPooler(1, width, context, c.pooler_heads)
        self.image_projection = build_projection("linear", width, c.embed_dim, "CoCaConfig.text")
        self.text_half = TextHalf(c.text, vocab_size, c.context_length, c.cls_mask == "legacy", c.pad_id)
        self.text_norm = build_norm(c.text.norm, width, c.text.norm_eps)
        self.text_projection = build_projection("linear", width, c.embed_dim, "CoCaConfig.text")
        self.image_half = ImageHalf(c.decoder, width, vocab_size)
        self.log_logit_scale = nn.Parameter(torch.tensor(c.init_logit_scale))

    def features_from(self, vectors: Float[Tensor, "i n"]) -> Float[Tensor, "i p d"]:
        return self._seen(vectors)[1]

    def encode_image(self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        """Unit vectors in fp32."""
        return self._image_unit(self._seen(self.image_vectors(images))[0])

    def encode_text(self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, "b e"]:
        """Unit vectors in fp32."""
        padded_rows(tokens, lengths, None, self.config.context_length)  # does it fit?
        return self._text_unit(self.text_half(tokens, lengths.to(tokens.device))[1])

    def encode_pairs(self, batch: Batch) -> Both:
        """Both towers' vectors and the states that captions are predicted from, each tower having run once."""
        tokens, lengths = text_of(batch, "CoCa")
        rows = padded_rows(tokens, lengths, batch.loss_mask, self.config.context_length)
        pooled, features = self._seen(seen_by_each(batch, self._vectors_of(batch), "CoCa"))
        states, cls = self.text_half(tokens, lengths.to(tokens.device, non_blocking=True))
        return Both(self._image_unit(pooled), self._text_unit(cls), self._said(rows, tokens, states, features))

    def predict(self, batch: Batch, features: Float[Tensor, "i p d"] | None = None) -> NextTokens:
        tokens, lengths = text_of(batch, "CoCa")
        rows = padded_rows(tokens, lengths, batch.loss_mask, self.config.context_length)
        features = seen_by_each(batch, self.features_of(batch) if features is None else features, "CoCa")
        states, _ = self.text_half(tokens, lengths.to(tokens.device, non_blocking=True))
        return self._said(rows, tokens, states, features)

    def begin(self, features: Float[Tensor, "i p d"] | None, prompt: Batch) -> State:
        context = seen_by_each(prompt, features, "CoCa")
        reading = Cache(self.config.text.depth + self.config.decoder.depth)
        self.image_half.look(context, reading.layers[self.config.text.depth :])
        return self.read_prompts(reading, prompt, context[:, :0])  # of which nothing more is needed

    def read(
        self, state: State, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b t d"]:
        plan, positions = reading_plan(state.reading, state.position, tokens.shape[1], lengths)
        layers, depth = state.reading.layers, self.config.text.depth
        x = self.text_half.read(tokens, positions.clamp(max=self.config.context_length - 1), plan, layers[:depth])
        assert state.context is not None
        hidden = self.image_half(x, state.context, plan, None, layers[depth:])
        note_read(state, hidden, lengths)
        return hidden

    def head(self) -> tuple[Float[Tensor, "v d"], Float[Tensor, " v"] | None]:
        return self.image_half.head.weight, None

    def decay_free(self) -> set[str]:
        poolers = {"pooler.query"} | ({"pooler_contrastive.query"} if self.pooler_contrastive is not None else set())
        return {f"image_tower.{n}" for n in self.image_tower.decay_free()} | {"text_half.position_embed"} | poolers

    def _seen(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(the contrastive token (i d), the tokens that the decoder reads (i p d))."""
        x = super().features_from(vectors)
        tokens = self.pooler(x)
        if self.pooler_contrastive is None:
            return tokens[:, 0], tokens[:, 1:]
        return self.pooler_contrastive(tokens if self.config.pooling == "cascade" else x)[:, 0], tokens

    def _vectors_of(self, batch: Batch) -> Tensor | None:
        cached = batch.cached or {}
        if "image" in cached:
            return cached["image"]
        return None if batch.images is None else self.image_vectors(batch.images)

    def _said(self, rows: Splice, tokens: Tensor, states: Tensor, features: Tensor) -> NextTokens:
        hidden = self.image_half(rows.take(states), features, MaskPlan(is_causal=True), rows.before)
        return NextTokens(hidden, tokens.flatten().index_select(0, rows.targets), rows.record)

    def _image_unit(self, pooled: Tensor) -> Tensor:
        assert self.image_projection is not None
        return F.normalize(self.image_projection(pooled).float(), dim=-1)

    def _text_unit(self, cls: Tensor) -> Tensor:
        assert self.text_projection is not None
        return F.normalize(self.text_projection(self.text_norm(cls)).float(), dim=-1)
