"""BLIP (Li et al., 2022, arXiv:2201.12086): one text side in three roles beside an image tower.

Read alone, a text is compared with the image; read with the image in sight, it is judged a match or not; written token
by token with the image in sight, it is a caption. All that reading and writing have is shared but self-attention.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from pydantic import model_validator
from torch import Tensor, nn

from diptych.core.batch import Batch
from diptych.models.blip2 import WritingHead
from diptych.models.captioner import padded_rows, seen_by_each
from diptych.models.fusion import BERT_BASE, Fusion, FusionConfig, FusionTower
from diptych.models.grounded_text import GroundedText, whole_texts
from diptych.models.writer import NextTokens, State, Writer, note_read, reading_plan, text_of
from diptych.nn.block import BlockConfig
from diptych.nn.cache import Cache
from diptych.nn.mask import MaskPlan


class BlipConfig(FusionConfig):
    """Settings of BLIP.

    text      the text side's blocks; their cross-attention is added
    roles     what it is for: "all" (pretraining), "compares" (vectors and matching) or "writes" alone, which is what
              fine-tuned weights for retrieval and for captions hold
    shares    whether writing shares all but self-attention with reading; if not it has a text side of its own, as after
              fine-tuning for answers
    match_id  the token in the place of a text's first one while a pair is judged (the paper's [ENC]), and
    write_id  while it is written ([DEC]). -1: a row of its own beyond the vocabulary
    """

    text: BlockConfig = BERT_BASE
    roles: Literal["all", "compares", "writes"] = "all"
    shares: bool = True
    match_id: int = -1
    write_id: int = -1

    @model_validator(mode="after")
    def _fits(self) -> "BlipConfig":
        if self.text.cross_attention != "none":
            raise ValueError(
                f"BlipConfig.text.cross_attention must be 'none', for the model adds its own; got "
                f"{self.text.cross_attention!r}. Leave it out."
            )
        if self.text.norm_position not in ("pre", "post"):
            raise ValueError(
                f"BlipConfig.text.norm_position must be 'pre' or 'post'; got {self.text.norm_position!r}. BERT's is "
                "'post'."
            )
        if not self.shares and self.roles != "all":
            raise ValueError(
                f"BlipConfig.shares must be true where there is one role, with nothing to share; got roles="
                f"{self.roles!r}. Leave it out."
            )
        return self

    def build(self, vocab_size: int) -> "Blip | BlipComparer | BlipCaptioner":
        kinds: dict[str, Any] = {"all": Blip, "compares": BlipComparer, "writes": BlipCaptioner}
        found: Blip | BlipComparer | BlipCaptioner = kinds[self.roles](self, vocab_size)
        return found


class _BlipText(FusionTower):
    """The text side, in the roles that the settings name."""

    config: BlipConfig

    def __init__(self, config: BlipConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        c, seen = config, self.reading.given.width
        self.match_id, self.write_id, rows = c.match_id, c.write_id, vocab_size
        if c.roles != "writes" and c.match_id < 0:
            self.match_id, rows = rows, rows + 1
        if c.roles != "compares" and c.shares and c.write_id < 0:
            self.write_id, rows = rows, rows + 1
        both = c.roles == "all" and c.shares
        self.text = GroundedText(c.text, rows, c.context_length, seen, both)
        self.writing_text: GroundedText | None = None
        if not c.shares:
            more = int(c.write_id < 0)
            self.write_id = vocab_size if more else c.write_id
            self.writing_text = GroundedText(c.text, vocab_size + more, c.context_length, seen)

    def decay_free(self) -> set[str]:
        """Position embeddings, and what the tower names."""
        sides = {"text"} | ({"writing_text"} if self.writing_text is not None else set())
        return {f"image_tower.{n}" for n in self.image_tower.decay_free()} | {f"{n}.position_embed" for n in sides}


class BlipComparer(_BlipText, Fusion):
    """Compares images with texts read alone, and judges texts read with the image in sight."""

    def __init__(self, config: BlipConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.add_heads(config.text.width)

    def unit_text(self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, "b e"]:
        mask = whole_texts(lengths, tokens.shape[1], tokens.device)
        return self.unit_of_state(self.text(self.text.embed(tokens), mask)[:, 0])

    def grounded(
        self,
        features: Float[Tensor, "b p c"],
        tokens: Int64[Tensor, "b t"],
        lengths: Int64[Tensor, " b"],
        first_id: int | None = None,
    ) -> Float[Tensor, "b t d"]:
        """The states of texts that see themselves whole, and the image. `first_id`: in the place of each text's first
        token; None: `match_id`."""
        mask = whole_texts(lengths, tokens.shape[1], tokens.device)
        x = self.text.embed(tokens, first_id=self.match_id if first_id is None else first_id)
        return self.text(x, mask, features)

    def matching_logits(
        self, features: Float[Tensor, "b p c"], tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]
    ) -> Float[Tensor, "b 2"]:
        return self.matching_head(self.grounded(features, tokens, lengths)[:, 0]).float()


class BlipCaptioner(_BlipText, Writer):
    """Writes a text about an image: a causal decoder that looks at the image in every block. One image a record.

    Logits are tied to the token embeddings.
    """

    def __init__(self, config: BlipConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        text = config.text
        self.writing_head = WritingHead(text.width, text.activation, text.norm_eps)
        self.head_bias = nn.Parameter(torch.zeros(vocab_size))

    @property
    def writer_text(self) -> GroundedText:
        """The text side that writes."""
        return self.text if self.writing_text is None else self.writing_text

    def written(
        self, features: Float[Tensor, "b p c"], batch: Batch, context_mask: MaskPlan | None = None
    ) -> NextTokens:
        """From which state each target of a batch's texts is predicted, with `features` in sight (as far as
        `context_mask` lets them)."""
        tokens, lengths = text_of(batch, "Blip")
        rows = padded_rows(tokens, lengths, batch.loss_mask, self.config.context_length)
        side = self.writer_text
        x = rows.take(side.embed(tokens, first_id=self.write_id))
        states = side(x, MaskPlan(is_causal=True), features, context_mask, writes=True)
        hidden = self.writing_head(rows.at(states, rows.before))
        return NextTokens(hidden, tokens.flatten().index_select(0, rows.targets), rows.record)

    def predict(self, batch: Batch, features: Float[Tensor, "i p c"] | None = None) -> NextTokens:
        text_of(batch, "Blip")
        features = self.features_of(batch) if features is None else features
        return self.written(seen_by_each(batch, features, "Blip"), batch)

    def begin(self, features: Float[Tensor, "i p c"] | None, prompt: Batch) -> State:
        context, side = seen_by_each(prompt, features, "Blip"), self.writer_text
        reading = Cache(len(side.blocks))
        side.look(context, reading.layers)
        return self.read_prompts(reading, prompt, context[:, :0])  # of which nothing more is needed

    def read(
        self, state: State, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b t d"]:
        plan, _ = reading_plan(state.reading, state.position, tokens.shape[1], lengths)
        side = self.writer_text
        x = side.embed(tokens, state.text, self.write_id)
        hidden = self.writing_head(side(x, plan, state.context, None, True, state.reading.layers))
        note_read(state, hidden, lengths)
        return hidden

    def head(self) -> tuple[Float[Tensor, "v d"], Float[Tensor, " v"] | None]:
        return self.writer_text.token_embed.weight[: self.vocab_size], self.head_bias


class Blip(BlipComparer, BlipCaptioner):
    """All three roles at once, as it is pretrained. `score` is the cosine or the matching log-odds (`scored_by`)."""

    def answer(
        self,
        features: Float[Tensor, "b p c"],
        question: tuple[Int64[Tensor, "b q"], Int64[Tensor, " b"]],
        answers: Batch,
    ) -> NextTokens:
        """From which state each token of the answers is predicted: the question is read with the image in sight, the
        answer is written with the question's states in sight (figure 5). The text must be as wide as image tokens."""
        tokens, lengths = question
        states = self.grounded(features, tokens, lengths)
        return self.written(states, answers, whole_texts(lengths, tokens.shape[1], tokens.device))
