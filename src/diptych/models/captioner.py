"""An image encoder and a decoder that looks at it by cross-attention: the captioner that CLIP's authors tried first.

Radford et al., 2021 (arXiv:2103.00020, section 2.3) train an image tower and a text transformer together, from scratch,
to predict captions. Cap (Tschannen et al., 2023, arXiv:2306.07915) has the same form.
"""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float, Int64
from pydantic import Field, model_validator
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.errors import DataError
from diptych.models.causal_transformer import CausalTransformerConfig
from diptych.models.connectors.connector import ConnectorConfig
from diptych.models.image_reading import ImageReading, ImageReadingConfig
from diptych.models.model import ModelConfig
from diptych.models.sees_images import ReadsTower
from diptych.models.tower import ImageTowerConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.models.writer import NextTokens, State, Writer, note_read, reading_plan, text_of
from diptych.nn.splice import Splice, splice


class CaptionerConfig(ModelConfig):
    """Settings of a captioner.

    image, embed_dim  the tower, and the width of its projection (used where the pooled vector is read)
    reading           which of its outputs are read
    connector         from them to what cross-attention attends to; None: the outputs as they are
    language          the decoder; its cross_attention must be "plain", and its context_width is set to what is read
    """

    image: ImageTowerConfig = VisionTransformerConfig()
    embed_dim: int = Field(default=512, gt=0)
    reading: ImageReadingConfig = ImageReadingConfig()
    connector: ConnectorConfig | None = None
    language: CausalTransformerConfig = CausalTransformerConfig(cross_attention="plain")

    @model_validator(mode="after")
    def _looks(self) -> "CaptionerConfig":
        if self.language.cross_attention != "plain":
            raise ValueError(
                f"CaptionerConfig.language.cross_attention must be 'plain', by which it sees the image; got "
                f"{self.language.cross_attention!r}. Set it, or use models.prefix_lm, which needs none."
            )
        return self

    def build(self, vocab_size: int) -> "Captioner":
        return Captioner(self, vocab_size)


class Captioner(ReadsTower, Writer):
    """image_tower -> connector -> the cross-attention of language. One image a record, wherever it stands in it."""

    config: CaptionerConfig

    def __init__(self, config: CaptionerConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        c, side = config, config.image_format.resolution
        self.image_tower = c.image.build(side, c.embed_dim)
        self.reading = ImageReading(c.reading, self.image_tower, side)
        given = self.reading.given
        width = c.language.context_width or c.language.width
        self.connector = None if c.connector is None else c.connector.build(given, width)
        self.image_tokens = given.tokens if self.connector is None else self.connector.tokens
        read = given.width if self.connector is None else width
        self.language = c.language.replace(context_width=read).build(vocab_size, c.context_length)

    def features_from(self, vectors: Float[Tensor, "i n"]) -> Float[Tensor, "i p d"]:
        tokens = super().features_from(vectors)
        return tokens if self.connector is None else self.connector(tokens)

    def predict(self, batch: Batch, features: Float[Tensor, "i p d"] | None = None) -> NextTokens:
        tokens, lengths = text_of(batch, type(self).__name__)
        features = seen_by_each(batch, self.features_of(batch) if features is None else features, "Captioner")
        s = padded_rows(tokens, lengths, batch.loss_mask, self.config.context_length)
        x = s.take(self.language.embed(tokens))
        hidden = self.language(x, s.mask("causal"), s.layout.positions(), context=features, only=s.before)
        return NextTokens(hidden, tokens.flatten().index_select(0, s.targets), s.record)

    def begin(self, features: Float[Tensor, "i p d"] | None, prompt: Batch) -> State:
        context = seen_by_each(prompt, features, "Captioner")
        reading = self.language.begin()
        blocks: Iterable[Any] = self.language.blocks
        for block, layer in zip(blocks, reading.layers, strict=True):
            # the image's keys and values are noted once for all texts: a query has to be there to ask for them
            query = context.new_zeros(len(context), 1, self.language.width)
            block.cross_attention(query, None, context, cache=layer.context)
        return self.read_prompts(reading, prompt, context[:, :0])  # of which nothing more is needed

    def read(
        self, state: State, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b t d"]:
        plan, positions = reading_plan(state.reading, state.position, tokens.shape[1], lengths)
        x = self.language.embed(tokens, state.text)
        hidden = self.language(x, plan, positions, state.reading, context=state.context)
        note_read(state, hidden, lengths)
        return hidden

    def head(self) -> tuple[Float[Tensor, "v d"], Float[Tensor, " v"] | None]:
        return self.language.head()

    def decay_free(self) -> set[str]:
        parts = {"image_tower": self.image_tower, "connector": self.connector, "language": self.language}
        return {f"{name}.{n}" for name, part in parts.items() if part is not None for n in part.decay_free()}


def seen_by_each(batch: Batch, features: Float[Tensor, "i *p"] | None, who: str) -> Float[Tensor, "i *p"]:
    """The features or vectors of images, if there is one image a record, in their order; else raises DataError."""
    records = len(batch.lengths) if batch.lengths is not None else 0
    found = 0 if features is None else len(features)
    owner = batch.image_record
    if features is None or found != records or (owner is not None and not _ascends(owner, found)):
        raise DataError(
            f"{who} must be given one image a record; got {found} images for {records} records. Use models.prefix_lm "
            "or flamingo for pages of several images and for texts without any."
        )
    return features


def _ascends(owner: Tensor, count: int) -> bool:
    """Whether image i is record i's; places that are not on the host are trusted, for nothing is read from a device."""
    return owner.device.type != "cpu" or bool((owner == torch.arange(count)).all())


def padded_rows(
    tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"], loss_mask: Tensor | None, context_length: int
) -> Splice:
    """Rows of text alone, one each, cut to the longest: where targets and their predecessors stand.

    Raises DataError where a row is longer than the context.
    """
    s = splice(lengths, tokens.shape[1], 0, loss_mask=loss_mask, device=tokens.device, form="padded")
    longest = int(s.sizes.max()) if len(s.sizes) else 0
    if longest > context_length:
        raise DataError(
            f"a text must have at most {context_length} tokens, this model's context_length; got {longest}. Truncate "
            "with the model's own tokenizer."
        )
    return s
