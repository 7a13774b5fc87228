"""The first stage of BLIP-2 (Li et al., 2023, arXiv:2301.12597): a Q-Former learns to ask of images what texts say.

One Q-Former in three roles, by what queries and text see of each other (`nn/qformer.py`): apart, they are embedded and
compared; together, they are judged a match or not; and from what the queries have asked, the text is written.
"""

import math
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from pydantic import Field
from torch import Tensor, nn

from diptych.core.batch import Batch
from diptych.core.errors import DataError
from diptych.models.connectors.qformer import QFormer, QFormerConfig
from diptych.models.image_reading import ImageReading, ImageReadingConfig
from diptych.models.model import ModelConfig
from diptych.models.pair_scores import log_odds
from diptych.models.sees_images import ReadsTower
from diptych.models.tower import ImageTowerConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.models.writer import NextTokens, State, Writer, note_read, text_of
from diptych.nn.cache import Cache
from diptych.nn.mask import QUERY, MaskPlan, padding, query_visible
from diptych.nn.mlp import Activation, activate
from diptych.nn.norm import build_norm
from diptych.nn.packing import host_lengths, to_longest
from diptych.nn.qformer import Seen, query_mask, twofold_mask


class Blip2Config(ModelConfig):
    """Settings of the first stage.

    image, embed_dim   the tower, and the width of its projection (used where the pooled vector is read)
    reading            which of its outputs the queries attend to
    qformer            the Q-Former
    shared_dim         width of the space in which queries and texts are compared
    scored_by          what `score` gives: the "matching" head's log-odds, or the "similarity", a cosine
    init_logit_scale   first value of the logit scale's logarithm, ln(1 / 0.07)
    max_logit_scale    the scale itself is held in [1, max_logit_scale] after each step
    """

    image: ImageTowerConfig = VisionTransformerConfig()
    embed_dim: int = Field(default=512, gt=0)
    reading: ImageReadingConfig = ImageReadingConfig()
    qformer: QFormerConfig = QFormerConfig()
    shared_dim: int = Field(default=256, gt=0)
    scored_by: Literal["matching", "similarity"] = "matching"
    init_logit_scale: float = math.log(1 / 0.07)
    max_logit_scale: float = Field(default=1000.0, ge=1)

    def build(self, vocab_size: int) -> "Blip2":
        return Blip2(self, vocab_size)


class Aligned(NamedTuple):
    """Unit vectors of each image's queries and of its text (float32), and the states of the text as it is written."""

    queries: Float[Tensor, "b m e"]
    text: Float[Tensor, "b e"]
    written: Float[Tensor, "b t d"]


class WritingHead(nn.Module):
    """What BERT puts between states and logits: a linear map, the activation, a norm."""

    def __init__(self, width: int, activation: Activation, eps: float) -> None:
        super().__init__()
        self.activation = activation
        self.fc, self.norm = nn.Linear(width, width), build_norm("layer", width, eps)
        nn.init.normal_(self.fc.weight, std=0.02)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Float[Tensor, "*s d"]) -> Float[Tensor, "*s d"]:
        return self.norm(activate(self.fc(x), self.activation))


class Blip2(ReadsTower, Writer):
    """image_tower -> qformer, beside which a text is read. Logits are tied to the token embeddings.

    A text is written after `write_token`, which stands in the place of its first token (the paper's [DEC] in that of
    [CLS]). A record has one image, which stands before its text. The similarity of image and text is the largest
    cosine over the queries (section 3.1), so there is no one vector of an image: this model scores pairs.
    """

    config: Blip2Config

    def __init__(self, config: Blip2Config, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        c, q, side = config, config.qformer, config.image_format.resolution
        self.image_tower = c.image.build(side, c.embed_dim)
        self.reading = ImageReading(c.reading, self.image_tower, side)
        self.image_tokens = self.reading.given.tokens
        self.qformer = QFormer(q, self.reading.given.width, reads=True)
        self.token_embed = nn.Embedding(vocab_size, q.width)
        self.position_embed = nn.Parameter(torch.randn(c.context_length, q.width) * 0.02)
        self.write_token = nn.Parameter(torch.randn(q.width) * 0.02)
        self.query_projection = nn.Linear(q.width, c.shared_dim)
        self.text_projection = nn.Linear(q.width, c.shared_dim)
        self.matching_head = nn.Linear(q.width, 2)
        self.writing_head = WritingHead(q.width, q.activation, q.norm_eps)
        self.head_bias = nn.Parameter(torch.zeros(vocab_size))
        self.log_logit_scale = nn.Parameter(torch.tensor(c.init_logit_scale))
        nn.init.normal_(self.token_embed.weight, std=0.02)

    def embed(
        self, tokens: Int64[Tensor, "b t"], start: Int64[Tensor, " b"] | None = None, writes: bool = False
    ) -> Float[Tensor, "b t d"]:
        """Tokens and their places as vectors; with `writes`, each text's first token is `write_token`. `start`: how
        many tokens came before."""
        if tokens.shape[1] > self.config.context_length:
            raise DataError(
                f"a text must have at most {self.config.context_length} tokens, the model's context_length; got "
                f"{tokens.shape[1]}. Truncate with the model's own tokenizer."
            )
        x = self.token_embed(tokens)
        places = torch.arange(tokens.shape[1], device=tokens.device)[None]
        places = places if start is None else places + start[:, None]
        if writes:
            x = torch.where((places == 0)[..., None], self.write_token.to(x.dtype), x)
        return x + F.embedding(places.clamp(max=self.config.context_length - 1), self.position_embed)

    def together(
        self, features: Float[Tensor, "b p c"], tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"], seen: Seen
    ) -> Float[Tensor, "b s d"]:
        """The states of queries and text beside each other; "visible" is the text as it is written."""
        mask = query_mask(len(self.qformer.queries), lengths.to(tokens.device), tokens.shape[1], seen)
        return self.qformer(features, self.embed(tokens, writes=seen == "visible"), mask)

    def align(
        self, features: Float[Tensor, "b p c"], tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]
    ) -> Aligned:
        """What the contrastive and the generation pass find, from one pass over [queries, text, text as written]."""
        m, t = len(self.qformer.queries), tokens.shape[1]
        text = torch.cat([self.embed(tokens), self.embed(tokens, writes=True)], dim=1)
        x = self.qformer(features, text, twofold_mask(m, lengths.to(tokens.device), t))
        return Aligned(self.unit_queries(x[:, :m]), self.unit_text(x[:, m]), self.writing_head(x[:, m + t :]))

    def unit_queries(self, states: Float[Tensor, "b m d"]) -> Float[Tensor, "b m e"]:
        """Unit vectors of the queries, in float32."""
        return F.normalize(self.query_projection(states).float(), dim=-1)

    def unit_text(self, state: Float[Tensor, "b d"]) -> Float[Tensor, "b e"]:
        """Unit vectors of texts, from the state of each one's first token, in float32."""
        return F.normalize(self.text_projection(state).float(), dim=-1)

    def matching_logits(
        self, features: Float[Tensor, "b p c"], tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]
    ) -> Float[Tensor, "b 2"]:
        """Logits of "no match" and "match" of each pair, averaged over the queries, in float32."""
        states = self.together(features, tokens, lengths, "full")[:, : len(self.qformer.queries)]
        return self.matching_head(states).float().mean(1)

    @torch.no_grad()
    def score(
        self, images: UInt8[Tensor, "i 3 h w"], tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]
    ) -> Float[Tensor, "i b"]:
        """Of every image and every text: the matching head's log-odds, or the largest cosine over the queries."""
        features = self.image_features(images)
        tokens, lengths = to_longest(tokens.to(features.device), lengths)
        if self.config.scored_by == "similarity":
            queries, text = self.unit_queries(self.qformer(features)), self._unit_texts(tokens, lengths)
            with torch.autocast(text.device.type, enabled=False):  # cosines in bf16 would tie
                return torch.einsum("ime,be->ibm", queries, text).amax(-1)
        return log_odds(self.matching_logits, features, tokens, lengths)

    def predict(self, batch: Batch, features: Float[Tensor, "i p c"] | None = None) -> NextTokens:
        tokens, lengths = text_of(batch, type(self).__name__)
        features = self._one_each(batch, self.features_of(batch) if features is None else features)
        states = self.together(features, tokens, lengths, "visible")[:, len(self.qformer.queries) :]
        return self.next_tokens(self.writing_head(states), replace(batch, tokens=tokens, lengths=lengths))

    def next_tokens(self, written: Float[Tensor, "b t d"], batch: Batch) -> NextTokens:
        """From the states of texts as they are written, what each target is predicted from."""
        tokens, lengths = text_of(batch, type(self).__name__)
        place = torch.arange(tokens.shape[1])
        bears = place < host_lengths(lengths, tokens.shape[1])[:, None]  # chosen on the host: no device is waited for
        bears = (bears & (place > 0)) if batch.loss_mask is None else bears & (place > 0) & batch.loss_mask.cpu()
        record, column = bears.nonzero(as_tuple=True)
        at = (record * tokens.shape[1] + column).to(tokens.device)
        hidden, targets = written.flatten(0, 1).index_select(0, at - 1), tokens.flatten().index_select(0, at)
        return NextTokens(hidden, targets, record.to(tokens.device))

    def begin(self, features: Float[Tensor, "i p c"] | None, prompt: Batch) -> State:
        features = self._one_each(prompt, features)
        reading, kind = Cache(self.qformer.depth), torch.full((len(features), len(self.qformer.queries)), QUERY)
        kind = kind.to(features.device)
        reading.add(torch.zeros_like(kind), modality=kind)
        self.qformer(features, reading=reading)
        return self.read_prompts(reading, prompt)

    def read(
        self, state: State, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b t d"]:
        count = tokens.shape[1]
        positions = state.text[:, None] + torch.arange(count, device=tokens.device)
        query, key = state.reading.add(positions, lengths)
        plan: MaskPlan | None = (query_visible() & padding()).plan(query, key)
        if count == 1 and not state.reading.ragged:
            plan = None
        states = self.qformer(None, self.embed(tokens, state.text, writes=True), plan, state.reading)
        hidden = self.writing_head(states)
        note_read(state, hidden, lengths)
        return hidden

    def head(self) -> tuple[Float[Tensor, "v d"], Float[Tensor, " v"] | None]:
        return self.token_embed.weight, self.head_bias

    @torch.no_grad()
    def after_step(self) -> None:
        """Hold the logit scale in [1, max_logit_scale], after the step, so that its gradient is never cut."""
        if self.log_logit_scale.requires_grad:
            self.log_logit_scale.clamp_(0, math.log(self.config.max_logit_scale))

    def decay_free(self) -> set[str]:
        towers = {f"image_tower.{n}" for n in self.image_tower.decay_free()}
        return {"position_embed"} | towers | {f"qformer.{n}" for n in self.qformer.decay_free()}

    def _unit_texts(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Of texts alone, each seeing itself whole."""
        mask = query_mask(0, lengths.to(tokens.device), tokens.shape[1], "full")
        return self.unit_text(self.qformer(None, self.embed(tokens), mask)[:, 0])

    def _one_each(self, batch: Batch, features: Tensor | None) -> Tensor:
        """The features, one image a record, before its text: a Q-Former reads no others."""
        rows = batch.size
        record, position = batch.image_record, batch.image_position
        moved = position is not None and bool((position > 0).any())
        if features is None or len(features) != rows or moved:
            raise DataError(
                f"Blip2 must be given one image a record, before its text; got "
                f"{0 if features is None else len(features)} images for {rows} records"
                f"{', some inside the text' if moved else ''}. Use pairs, or models.prefix_lm for interleaved pages."
            )
        if record is not None and not torch.equal(record.cpu(), torch.arange(rows)):
            raise DataError("Blip2 must be given one image a record; got several of one record. Use pairs.")
        return features
