"""Chameleon (Chameleon team, 2024, arXiv:2405.09818): early fusion. Words and the codes of images are ids of one
vocabulary, and one causal transformer reads and writes both.

Its blocks are LLaMA's with layer norms on queries and keys before they are turned, before each half a norm ("pre": 7B)
or on what each half adds ("swin": 34B).
"""

from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from pydantic import Field, model_validator
from torch import Tensor, nn

from diptych.core.batch import Batch
from diptych.models.causal_transformer import CausalTransformerConfig
from diptych.models.code_painting import PaintsCodes, draw_codes, guided
from diptych.models.codecs.codec import CodecConfig
from diptych.models.modality_grammar import ModalityGrammar
from diptych.models.model import ModelConfig
from diptych.models.painting import Painting
from diptych.models.sequence_writer import SequenceWriter
from diptych.models.writer import NextTokens, State, empty_prompt, record_of_images, text_of
from diptych.nn.draws import uniform
from diptych.nn.mask import IMAGE, MaskPlan
from diptych.nn.rotary import rotary

NEVER = -1e9
"""The logit of what must not be written: finite, so that no sum of it is not a number."""


class ChameleonConfig(ModelConfig):
    """Settings of early fusion.

    codec           whose codes images are; frozen
    language        the transformer over words and codes; its positions must be rotary
    max_images      images a record may have: the context has room for their codes
    codes_within    whether codes and the marks of an image's begin and end are ids of the text's vocabulary (of a
                    converted model: which ones is kept with the weights) or stand behind it
    guidance        how far beyond what it paints without the text to go, where it is not said (1: not at all)
    features_after  blocks after which `image_features` are taken; 0: half of them
    """

    codec: CodecConfig
    language: CausalTransformerConfig = CausalTransformerConfig(
        activation="swiglu", norm="rms", bias=False, qk_norm="layer", tied=False
    )
    max_images: int = Field(default=1, ge=1)
    codes_within: bool = False
    guidance: float = Field(default=1.0, ge=0)
    features_after: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _rotary(self) -> "ChameleonConfig":
        if self.language.positions != "rope":
            raise ValueError(
                f"ChameleonConfig.language.positions must be 'rope', since words and codes are one sequence; got "
                f"{self.language.positions!r}. Leave it out."
            )
        return self

    def build(self, vocab_size: int) -> "Chameleon":
        return Chameleon(self, vocab_size)


class MixedTokens(NamedTuple):
    """What each token of packed records is predicted from. A target is a word or of an image where that weighs 1.

    hidden       the state before the token
    targets      its id
    text, image  1 for a word that bears loss, and for a token of an image; else 0, as for filling and each record's
                 first token
    """

    hidden: Float[Tensor, "m d"]
    targets: Int64[Tensor, " m"]
    text: Float[Tensor, " m"]
    image: Float[Tensor, " m"]


class Chameleon(SequenceWriter, PaintsCodes):
    """An image is [begin, n codes, end] in the sequence, wherever it stands among the words.

    As a writer it says words alone, whose logits are all that `head` has; `generate_image` paints with codes alone, and
    exactly as many as the grid has (`grammar`).
    """

    config: ChameleonConfig
    code_ids: Tensor
    mark_ids: Tensor

    def __init__(self, config: ChameleonConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        c = config
        count, rows, columns = self.take_codec(c.codec)
        self.cells = rows * columns
        self.image_tokens = self.cells + 2
        whole = vocab_size if c.codes_within else vocab_size + count + 2
        self.language = c.language.build(whole, c.context_length + c.max_images * self.image_tokens)
        first = whole - count - 2  # of a converted model until its weights say otherwise
        self.register_buffer("code_ids", torch.arange(first, first + count), persistent=c.codes_within)
        self.register_buffer("mark_ids", torch.arange(whole - 2, whole), persistent=c.codes_within)

    @property
    def grammar(self) -> ModalityGrammar:
        """What may follow what."""
        return ModalityGrammar(self.code_ids, self.mark_ids, self.cells, self.language.vocab_size)

    def image_ids(self, codes: Int64[Tensor, "i n"]) -> Int64[Tensor, "i p"]:
        """An image's tokens as ids of the one vocabulary: its begin, its codes, its end."""
        begin, end = self.mark_ids.expand(len(codes), -1).split(1, dim=1)
        return torch.cat([begin, self.code_ids[codes], end], 1)

    def image_vectors(self, images: UInt8[Tensor, "i 3 h w"] | Float[Tensor, "i 3 h w"]) -> Float[Tensor, "i n"]:
        """The codes, which are all that a model reads of an image, as floats."""
        return self.codes(images).float()

    def table_width(self, kind: str) -> int:
        return self.cells

    def features_from(self, vectors: Float[Tensor, "i n"]) -> Float[Tensor, "i p d"]:
        """Of each token of an image first its embedding, which is what is read, and behind that its state after the
        middle blocks (`features_after`), where the image is all that was read."""
        x = embeds = self.language.embed(self.image_ids(vectors.round().long()))
        c, blocks = self.config.language, cast(nn.ModuleList, self.language.blocks)
        turns = rotary(torch.arange(x.shape[1], device=x.device)[None], c.width // c.heads, c.rope_theta)
        for block in blocks[: self.config.features_after or max(1, c.depth // 2)]:
            x = block(x, MaskPlan(is_causal=True), rotary=turns)
        return torch.cat([embeds, x.to(embeds.dtype)], -1)

    def predict(self, batch: Batch, features: Float[Tensor, "i p d"] | None = None) -> NextTokens:
        if features is None:
            codes = self.codes_of(batch)
            features = None if codes is None else self.language.embed(self.image_ids(codes))
        return super().predict(batch, self._read(features))

    def predict_mixed(self, batch: Batch, image_first: Bool[Tensor, " b"]) -> MixedTokens:
        """What every token is predicted from, words and codes alike. Where the batch does not say where images stand,
        each is before its text, or (`image_first`, on the host, is false) behind it."""
        tokens, lengths = text_of(batch, "Chameleon")
        codes = self.codes_of(batch)
        ids = None if codes is None else self.image_ids(codes)
        record, position = record_of_images(batch, ids), batch.image_position
        if record is not None and position is None:
            position = torch.where(image_first[record], 0, lengths[record])
        placed = Batch(loss_mask=batch.loss_mask, tokens=tokens, image_record=record, image_position=position)
        s = self._splice(placed, ids, lengths, self._form(tokens))
        place = torch.arange(tokens.shape[1])
        wanted = (place > 0) & (place < lengths[:, None]) if batch.loss_mask is None else batch.loss_mask
        flat, words = tokens.flatten(), wanted.to(tokens.device, non_blocking=True).flatten().float()
        if ids is not None:
            flat, words = torch.cat([flat, ids.flatten()]), torch.cat([words, words.new_zeros(ids.numel())])
        row = flat.index_select(0, s.source.flatten()).view_as(s.source)
        hidden = self.language(self.language.embed(row), s.mask(self.seen), s.layout.positions())
        segment = s.layout.segments()
        real = (segment >= 0) & (segment < len(lengths)) & (s.layout.positions() > 0)
        text = words.index_select(0, s.source.flatten()).view_as(real) * real
        image = ((s.layout.modalities() == IMAGE) & real).float()
        # a record's tokens lie one after another: each is predicted from the place before it
        return MixedTokens(
            hidden.flatten(0, 1)[:-1], row.flatten()[1:], text.flatten()[1:].float(), image.flatten()[1:]
        )

    def codes_of(self, batch: Batch) -> Int64[Tensor, "i n"] | None:
        """The codes of a batch's images, from a table where it brings them; None: it has no images."""
        if batch.cached is not None and "image" in batch.cached:
            return batch.cached["image"].round().long()
        return None if batch.images is None or not len(batch.images) else self.codes(batch.images)

    def begin(self, features: Float[Tensor, "i p d"] | None, prompt: Batch) -> State:
        return super().begin(self._read(features), prompt)

    @torch.no_grad()
    def text_prior(self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, " b"]:
        """log p(text): half of all texts that it learns from come before their image."""
        return self.likelihoods(self.begin(None, empty_prompt(1, self.pixel_mean.device)), tokens, lengths)[0]

    def head(self) -> tuple[Float[Tensor, "v d"], Float[Tensor, " v"] | None]:
        """Of words alone: codes and marks are left out, or, where they are ids among words, never said."""
        weight, bias = self.language.head()
        if not self.config.codes_within:
            return weight[: self.vocab_size], None if bias is None else bias[: self.vocab_size]
        never = weight.new_zeros(len(weight)).index_fill(0, torch.cat([self.code_ids, self.mark_ids]), NEVER)
        return weight, never if bias is None else bias + never

    def logits(self, hidden: Float[Tensor, "*n d"]) -> Float[Tensor, "*n v"]:
        weight, bias = self.head()
        return torch.nn.functional.linear(hidden, weight, bias)

    @torch.no_grad()
    def generate_codes(
        self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"], how: Painting
    ) -> Int64[Tensor, "b n"]:
        """The codes of an image behind each text, drawn one after the other; what was read is kept. Guidance goes away
        from an image before which nothing stands."""
        tokens = tokens.to(self.pixel_mean.device)
        guidance = self.config.guidance if how.guidance is None else how.guidance
        chance = uniform(how.keys(len(tokens), tokens.device), "codes", self.cells)
        lengths = lengths.cpu()
        states = [self.begin(None, Batch(tokens=tokens, lengths=lengths))]
        if guidance != 1:
            states.append(self.begin(None, Batch(tokens=tokens[:, :0], lengths=torch.zeros_like(lengths))))
        weight, bias = self.language.head()
        weight, bias = weight[self.code_ids], None if bias is None else bias[self.code_ids]
        step, drawn = self.mark_ids[:1].expand(len(tokens)), []
        for i in range(self.cells):
            hidden = [self.read(state, step[:, None])[:, 0] for state in states]
            logits = [torch.nn.functional.linear(h, weight, bias).float() for h in hidden]
            chosen = logits[0] if guidance == 1 else guided(logits[0], logits[1], guidance)
            drawn.append(draw_codes(chosen, chance[:, i], how))
            step = self.code_ids[drawn[-1]]
        return torch.stack(drawn, 1)

    def generate_image(
        self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"], how: Painting
    ) -> UInt8[Tensor, "b 3 h w"]:
        """An image behind each text. `how`: seed, guidance, temperature, top_k and top_p."""
        return self.paint_codes(self.generate_codes(tokens, lengths, how))

    def decay_free(self) -> set[str]:
        parts = {"codec": self.codec, "language": self.language}
        return {f"{name}.{n}" for name, part in parts.items() for n in part.decay_free()}

    def _read(self, features: Tensor | None) -> Tensor | None:
        """What of `image_features` is read: the embeddings."""
        return None if features is None else features[..., : self.language.width]
