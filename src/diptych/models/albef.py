"""ALBEF (Li et al., 2021, arXiv:2107.07651): an image tower, a text half that reads alone, and a half that fuses both.

Image and text are aligned before they are fused: their vectors are compared, then the states of the text attend to the
image's tokens, and from these it is judged whether both belong together and what hidden words were.
"""

import torch
from jaxtyping import Float, Int64
from pydantic import Field, model_validator
from torch import Tensor, nn

from diptych.models.blip2 import WritingHead
from diptych.models.fusion import BERT_BASE, Fusion, FusionConfig
from diptych.models.grounded_text import GroundedText, build_role_blocks, whole_texts
from diptych.nn.block import BlockConfig
from diptych.nn.norm import build_norm


class AlbefConfig(FusionConfig):
    """Settings of ALBEF.

    text          blocks of the half that reads alone
    fusion_depth  further blocks of that kind, which attend to the image too
    mask_id       of the token that stands for hidden ones; -1: a row of its own beyond the vocabulary
    """

    text: BlockConfig = BERT_BASE.replace(depth=6)
    fusion_depth: int = Field(default=6, ge=1)
    mask_id: int = -1

    @model_validator(mode="after")
    def _fits(self) -> "AlbefConfig":
        if self.text.cross_attention != "none":
            raise ValueError(
                f"AlbefConfig.text.cross_attention must be 'none', for the fusing half adds its own; got "
                f"{self.text.cross_attention!r}. Leave it out."
            )
        if self.text.norm_position not in ("pre", "post"):
            raise ValueError(
                f"AlbefConfig.text.norm_position must be 'pre' or 'post'; got {self.text.norm_position!r}. BERT's is "
                "'post'."
            )
        return self

    def build(self, vocab_size: int) -> "Albef":
        return Albef(self, vocab_size)


class Albef(Fusion):
    """image_tower; text -> fusion, which looks at the image. `score` is the cosine, or the matching head's log-odds.

    Logits of hidden tokens are tied to the token embeddings. `mask_id`: the token that stands for hidden ones.
    """

    config: AlbefConfig

    def __init__(self, config: AlbefConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        c, text, seen = config, config.text, self.reading.given.width
        self.mask_id = vocab_size if c.mask_id < 0 else c.mask_id
        self.text = GroundedText(text, vocab_size + int(c.mask_id < 0), c.context_length)
        crossing = text.replace(depth=c.fusion_depth, cross_attention="plain", context_width=seen)
        self.fusion = build_role_blocks(crossing)
        behind = text.norm_position == "post"
        self.fusion_norm = nn.Identity() if behind else build_norm(text.norm, text.width, text.norm_eps)
        self.masked_head = WritingHead(text.width, text.activation, text.norm_eps)
        self.head_bias = nn.Parameter(torch.zeros(vocab_size))
        self.add_heads(text.width)

    def read(self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, "b t d"]:
        """The states of texts that are read alone."""
        return self.text(self.text.embed(tokens), whole_texts(lengths, tokens.shape[1], tokens.device))

    def fuse(
        self, features: Float[Tensor, "b p c"], states: Float[Tensor, "b t d"], lengths: Int64[Tensor, " b"]
    ) -> Float[Tensor, "b t d"]:
        """The states of texts, which `read` gives, after they have looked at their image."""
        mask, x = whole_texts(lengths, states.shape[1], states.device), states
        for block in self.fusion:
            x = block(x, mask, features)
        return self.fusion_norm(x)

    def unit_text(self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, "b e"]:
        return self.unit_of_state(self.read(tokens, lengths)[:, 0])

    def matching_logits(
        self, features: Float[Tensor, "b p c"], tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]
    ) -> Float[Tensor, "b 2"]:
        return self.match_states(features, self.read(tokens, lengths), lengths)

    def match_states(
        self, features: Float[Tensor, "b p c"], states: Float[Tensor, "b t d"], lengths: Int64[Tensor, " b"]
    ) -> Float[Tensor, "b 2"]:
        """`matching_logits` from the states that `read` gives."""
        return self.matching_head(self.fuse(features, states, lengths)[:, 0]).float()

    def masked_states(
        self,
        features: Float[Tensor, "b p c"],
        tokens: Int64[Tensor, "b t"],
        lengths: Int64[Tensor, " b"],
        places: Int64[Tensor, "b k"],
    ) -> Float[Tensor, "b k d"]:
        """From which the tokens at some places of texts, where something is hidden, are foreseen."""
        states = self.fuse(features, self.read(tokens, lengths), lengths)
        return self.masked_head(states.gather(1, places[..., None].expand(-1, -1, states.shape[-1])))

    def head(self) -> tuple[Float[Tensor, "v d"], Float[Tensor, " v"]]:
        """Weight and bias of the map from `masked_states` to logits."""
        return self.text.token_embed.weight[: self.vocab_size], self.head_bias

    def decay_free(self) -> set[str]:
        return {"text.position_embed"} | {f"image_tower.{n}" for n in self.image_tower.decay_free()}
