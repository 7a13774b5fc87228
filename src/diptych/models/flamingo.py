"""Flamingo (Alayrac et al., 2022, arXiv:2204.14198): a language model, as it is, that looks aside at images."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor, nn

from diptych.core.batch import Batch
from diptych.core.errors import ConfigError, DataError
from diptych.models.causal_transformer import CausalTransformerConfig
from diptych.models.connectors.connector import ConnectorConfig
from diptych.models.connectors.perceiver import PerceiverConfig
from diptych.models.image_reading import ImageReading, ImageReadingConfig
from diptych.models.language import BeforeBlock, LanguageConfig
from diptych.models.model import ModelConfig
from diptych.models.sees_images import ReadsTower
from diptych.models.tower import ImageTowerConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.models.writer import NextTokens, State, Writer, note_read, reading_plan, record_of_images, text_of
from diptych.nn.cache import Cache
from diptych.nn.mask import MaskPlan
from diptych.nn.media import media
from diptych.nn.perceiver import GatedCrossAttention, GatedCrossAttentionConfig
from diptych.nn.splice import Form, Splice, splice


class FlamingoConfig(ModelConfig):
    """Settings of a language model that looks aside at images. `context_length` counts text alone.

    image, embed_dim  the tower, and the width of its projection (used where the pooled vector is read)
    reading           which of its outputs are read; without CLS in Flamingo's public twins
    connector         from them to what is looked at, as wide as they are
    cross             the gated cross-attention
    cross_every       before every how manyth block of the language model it stands: 1 (3b), 4 (9b), 7 (80b)
    cross_at          before the "last" of each so many blocks (Flamingo, OpenFlamingo), or the "first" (Idefics)
    foretells         whether the token before an image sees it already. It is what the first word behind the image is
                      foretold from, which in Flamingo is a token "<image>" between them; false where texts hold such
                      tokens themselves, `image_position` being their place (Idefics)
    """

    image: ImageTowerConfig = VisionTransformerConfig()
    embed_dim: int = Field(default=512, gt=0)
    reading: ImageReadingConfig = ImageReadingConfig()
    connector: ConnectorConfig = PerceiverConfig()
    language: LanguageConfig = CausalTransformerConfig()
    cross: GatedCrossAttentionConfig = GatedCrossAttentionConfig()
    cross_every: int = Field(default=1, ge=1)
    cross_at: Literal["last", "first"] = "last"
    foretells: bool = False

    def build(self, vocab_size: int) -> "Flamingo":
        return Flamingo(self, vocab_size)


@dataclass
class FlamingoState(State):
    """What has been read of each row. `media`: keys and values, for every gate, of each row's last image; `sees`: which
    rows have one, None: all have, or none has (`media` is then None too)."""

    media: Cache | None = None
    sees: Bool[Tensor, " b"] | None = None

    def select(self, rows: Int64[Tensor, " n"]) -> "FlamingoState":
        state = super().select(rows)
        chosen = None if self.media is None else self.media.copy()
        if chosen is not None:
            chosen.select(rows)
        sees = None if self.sees is None else self.sees[rows]
        return FlamingoState(state.reading, state.position, state.text, state.context, state.last, chosen, sees)


class Flamingo(ReadsTower, Writer):
    """image_tower -> connector -> keys and values of `gates`, which stand before blocks of `language`. The language
    model is any, and untouched: while the gates are zero it says what it would say alone. A token sees, of its record's
    images, the last at or before its own place; through the text before it, it knows of the others."""

    config: FlamingoConfig

    def __init__(self, config: FlamingoConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        c, side = config, config.image_format.resolution
        self.image_tower = c.image.build(side, c.embed_dim)
        self.reading = ImageReading(c.reading, self.image_tower, side)
        width = self.reading.given.width
        self.connector = c.connector.build(self.reading.given, width)
        self.image_tokens = self.connector.tokens
        self.language = c.language.build(vocab_size, c.context_length)
        self.vocab_size = self.language.vocab_size  # a folder's may have rows to spare
        self.places = crossed(self.language.depth, c.cross_every, c.cross_at)
        if not self.places:
            raise ConfigError(
                f"model.cross_every must be at most the language model's depth, {self.language.depth}, or no block "
                f"looks at an image; got {c.cross_every}. Take 1 for a small one."
            )
        self.gates = nn.ModuleList(GatedCrossAttention(c.cross, self.language.width, width) for _ in self.places)

    def features_from(self, vectors: Float[Tensor, "i n"]) -> Float[Tensor, "i p d"]:
        return self.connector(super().features_from(vectors))

    def predict(self, batch: Batch, features: Float[Tensor, "i p d"] | None = None) -> NextTokens:
        tokens, _ = text_of(batch, type(self).__name__)
        features = self.features_of(batch) if features is None else features
        s, before = self._beside(batch, features, self._form())
        positions = s.layout.positions()
        x = s.take(self.language.embed(tokens))
        hidden = self.language(x, s.mask("causal"), positions, before=before, only=s.before)
        return NextTokens(hidden, tokens.flatten().index_select(0, s.targets), s.record)

    def begin(self, features: Float[Tensor, "i p d"] | None, prompt: Batch) -> FlamingoState:
        tokens, lengths = text_of(prompt, type(self).__name__)
        device, rows = tokens.device, len(lengths)
        zeros = torch.zeros(rows, dtype=torch.int64, device=device)
        state = FlamingoState(self.language.begin(), zeros, zeros)
        if int(lengths.sum()):
            s, before = self._beside(prompt, features, "padded")
            positions = s.layout.positions()
            state.reading.add(positions, s.sizes, s.layout.modalities())
            hidden = self.language(
                s.take(self.language.embed(tokens)), s.mask("causal"), positions, state.reading, before=before
            )
            state.position = state.text = s.sizes.to(device)
            state.last = s.at(hidden, s.last)
        if features is not None and len(features):
            self._look(state, features, prompt, rows)
        return state

    def read(
        self, state: State, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b t d"]:
        assert isinstance(state, FlamingoState)
        plan, positions = reading_plan(state.reading, state.position, tokens.shape[1], lengths)
        x = self.language.embed(tokens, state.text)
        hidden = self.language(x, plan, positions, state.reading, before=self._again(state))
        note_read(state, hidden, lengths)
        return hidden

    def head(self) -> tuple[Float[Tensor, "v d"], Float[Tensor, " v"] | None]:
        return self.language.head()

    def logits(self, hidden: Float[Tensor, "*n d"]) -> Float[Tensor, "*n v"]:
        return self.language.logits(hidden)

    def decay_free(self) -> set[str]:
        parts: dict[str, Any] = {
            "image_tower": self.image_tower,
            "connector": self.connector,
            "language": self.language,
        }
        return {f"{name}.{n}" for name, part in parts.items() for n in part.decay_free()}

    def _form(self) -> Form:
        return "padded" if torch.compiler.is_compiling() else "rows"

    def _beside(self, batch: Batch, features: Tensor | None, form: Form) -> tuple[Splice, BeforeBlock]:
        """The batch's text in rows, and what looks from them at its images."""
        tokens, lengths = text_of(batch, type(self).__name__)
        longest = int(lengths.max()) if len(lengths) else 0
        if longest > self.language.context_length:
            raise DataError(
                f"a text must have at most {self.language.context_length} tokens; got {longest}. Truncate with the "
                "model's own tokenizer."
            )
        record = record_of_images(batch, features)
        where = (record, None if record is None else batch.image_position)
        device, host = tokens.device, torch.device("cpu")
        s = splice(lengths, tokens.shape[1], 0, *where, batch.loss_mask, device, form)
        if features is None or record is None or not len(record):
            return s, self._before(None, None, None)
        on_host = s if device == host else splice(lengths, tokens.shape[1], 0, *where, batch.loss_mask, host, form)
        beside = media(on_host, record, batch.image_position, device, int(self.config.foretells))
        return s, self._before(beside.take(features), beside.mask(features.shape[1]), None)

    def _before(self, context: Tensor | None, mask: MaskPlan | None, cache: Cache | None) -> BeforeBlock:
        """Each gate before its block."""
        gates = dict(zip(self.places, range(len(self.places)), strict=True))

        def look(i: int, x: Tensor) -> Tensor:
            if i not in gates:
                return x
            n = gates[i]
            return self.gates[n](x, context, mask, None if cache is None else cache.layers[n].context)

        return look

    def _look(self, state: FlamingoState, features: Tensor, prompt: Batch, rows: int) -> None:
        """Note keys and values of each row's last image: all that later tokens see."""
        record = record_of_images(prompt, features)
        assert record is not None
        last = torch.full((rows,), -1, dtype=torch.int64)
        last[record] = torch.arange(len(record))  # ascending: the last one of a record stays
        context = features.index_select(0, last.clamp(min=0).to(features.device))
        state.media = Cache(len(self.gates))
        asks = context.new_zeros(rows, 1, self.language.width)
        for gate, layer in zip(self.gates, state.media.layers, strict=True):
            gate(asks, context, None, layer.context)
        if bool((last < 0).any()):
            state.sees = (last >= 0).to(features.device)

    def _again(self, state: FlamingoState) -> BeforeBlock:
        """Each gate, looking at the images whose keys and values were noted."""
        if state.media is None:
            return self._before(None, None, None)
        keys = state.media.layers[0].context.keys
        mask = None if state.sees is None else MaskPlan(sees=state.sees[:, None, None, None])
        return self._before(keys[:, 0], mask, state.media)  # stands for a context: the cache holds what is used


def crossed(depth: int, every: int, at: Literal["last", "first"]) -> tuple[int, ...]:
    """The blocks of a language model before which cross-attention stands."""
    return tuple(range(every - 1 if at == "last" else 0, depth, every))
