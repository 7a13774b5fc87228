"""DALL-E (Ramesh et al., 2021, arXiv:2102.12092): one causal transformer over a text and then the codes of its image.

Attention is dense here (the paper's is sparse along rows and columns, to afford 1,024 codes). Places without text hold
vectors of their own, one a place, as in the paper; without any text, they are what the image is painted from where
guidance asks for that, which is learned by dropping texts (objectives/dalle.py).
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from pydantic import Field
from torch import Tensor, nn

from diptych.core.errors import DataError
from diptych.models.code_painting import PaintsCodes, draw_codes, guided
from diptych.models.codecs.codec import CodecConfig
from diptych.models.model import ModelConfig
from diptych.models.painting import Painting
from diptych.nn.block import BlockConfig, build_blocks, init_scaled
from diptych.nn.cache import Cache
from diptych.nn.draws import uniform
from diptych.nn.mask import MaskPlan
from diptych.nn.norm import build_norm

NUMBERS = 1 << 23
"""Keys, values and logits of pairs that are held at once where likelihoods are asked for: 32 MB. dalle:tiny scores 700
pairs a second so on two cores, 510 with four times as many at once, and 550 with whole rows for every pair."""


class DalleConfig(ModelConfig):
    """Settings of a decoder that paints.

    codec           whose codes images are; frozen
    decoder         the blocks, causal
    guidance        how far beyond what it paints without the text to go, where it is not said (1: not at all)
    features_after  blocks after which `image_features` are taken; 0: half of them
    """

    codec: CodecConfig
    decoder: BlockConfig = BlockConfig()
    guidance: float = Field(default=1.0, ge=0)
    features_after: int = Field(default=0, ge=0)

    def build(self, vocab_size: int) -> "Dalle":
        return Dalle(self, vocab_size)


class TextAndCodes(NamedTuple):
    """What is predicted from what: of each text token that bears loss, and of each code, row by row.

    text, image    states after the last norm, to be read by `text_head` and `image_head`
    words, codes   the targets
    record         which of the b records each word is of
    """

    text: Float[Tensor, "m d"]
    words: Int64[Tensor, " m"]
    record: Int64[Tensor, " m"]
    image: Float[Tensor, "k d"]
    codes: Int64[Tensor, " k"]


class Dalle(PaintsCodes):
    """[t places of text, n codes] -> logits of the next: of words before the text ends, of codes from there on.

    `score` is log p(codes | text), `image_prior` log p(codes | no text).
    """

    config: DalleConfig

    def __init__(self, config: DalleConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        c, width = config, config.decoder.width
        count, rows, columns = self.take_codec(c.codec)
        self.cells, self.columns = rows * columns, columns
        self.token_embed, self.code_embed = nn.Embedding(vocab_size, width), nn.Embedding(count, width)
        self.pad_embed = nn.Parameter(torch.randn(c.context_length, width) * 0.02)
        self.position_embed = nn.Parameter(torch.randn(c.context_length, width) * 0.01)
        self.row_embed = nn.Parameter(torch.randn(rows, width) * 0.01)
        self.column_embed = nn.Parameter(torch.randn(columns, width) * 0.01)
        self.blocks = build_blocks(c.decoder)
        self.norm_final = build_norm(c.decoder.norm, width, c.decoder.norm_eps)
        self.text_head, self.image_head = nn.Linear(width, vocab_size, bias=False), nn.Linear(width, count, bias=False)
        for table in (self.token_embed, self.code_embed, self.text_head, self.image_head):
            nn.init.normal_(table.weight, std=0.02)
        init_scaled(self.blocks, width, max(c.decoder.depth, 1))

    def predict(
        self,
        tokens: Int64[Tensor, "b t"],
        lengths: Int64[Tensor, " b"],
        codes: Int64[Tensor, "b n"],
        dropped: Bool[Tensor, " b"] | None = None,
        loss_mask: Bool[Tensor, "b t"] | None = None,
    ) -> TextAndCodes:
        """From which states words and codes are predicted. Of rows whose text is `dropped` no word is, for there is
        none. `lengths` and `loss_mask` (None: all words but the first) are on the host; the rest is not read back."""
        words = self.words(tokens, lengths, dropped)
        x = torch.cat([words, self.squares(codes[:, :-1])], 1)
        x = self.norm_final(self.through(x, MaskPlan(is_causal=True)))
        last = self.config.context_length - 1
        wanted = (
            torch.arange(tokens.shape[1]) < lengths.cpu()[:, None] if loss_mask is None else loss_mask.cpu().clone()
        )
        wanted[:, :1] = False
        record, place = (found.to(tokens.device) for found in wanted.nonzero(as_tuple=True))
        states = x.flatten(0, 1).index_select(0, record * x.shape[1] + place - 1)
        return TextAndCodes(states, tokens[record, place], record, x[:, last:].flatten(0, 1), codes.flatten())

    def words(
        self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"], dropped: Bool[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b c d"]:
        """Texts as vectors, all as long as the context; of those that are `dropped` nothing is left."""
        context, device = self.config.context_length, self.pad_embed.device
        longest = int(lengths.max()) if len(lengths) else 0
        if longest > context:
            raise DataError(
                f"a text must have at most {context} tokens; got {longest}. Truncate with the model's own tokenizer."
            )
        tokens = tokens[:, :context]
        given = self.token_embed(tokens)
        place = torch.arange(tokens.shape[1], device=device)
        real = place < lengths.to(device, non_blocking=True)[:, None]
        if dropped is not None:
            real = real & ~dropped[:, None]
        pads = self.pad_embed.to(given.dtype).expand(len(tokens), -1, -1)
        x = torch.where(real[:, :, None], given, pads[:, : tokens.shape[1]])
        return torch.cat([x, pads[:, tokens.shape[1] :]], 1) + self.position_embed

    def squares(self, codes: Int64[Tensor, "b m"], start: int = 0) -> Float[Tensor, "b m d"]:
        """Codes as vectors with their places, of which the first is the `start`-th of the grid."""
        places = torch.arange(start, start + codes.shape[1], device=codes.device)
        return (
            self.code_embed(codes) + self.row_embed[places // self.columns] + self.column_embed[places % self.columns]
        )

    def through(
        self, x: Float[Tensor, "b s d"], plan: MaskPlan | None, cache: Cache | None = None, depth: int | None = None
    ) -> Float[Tensor, "b s d"]:
        """`x` through the first `depth` blocks (None: all), behind what the `cache` has read."""
        for i, block in enumerate(self.blocks[:depth]):
            x = block(x, plan, cache=None if cache is None else cache.layers[i])
        return x

    def read_texts(
        self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]
    ) -> tuple[Cache, Float[Tensor, "b d"]]:
        """Keys and values of texts, and the state from which each one's first code is predicted."""
        cache = Cache(len(self.blocks))
        x = self.through(self.words(tokens, lengths), MaskPlan(is_causal=True), cache)
        return cache, self.norm_final(x[:, -1])

    @torch.no_grad()
    def score(
        self, images: UInt8[Tensor, "i 3 h w"], tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]
    ) -> Float[Tensor, "i b"]:
        """log p(codes of the image | text) of every image and every text. Each text is read once."""
        codes, c = self.codes(images), self.config
        read, first = self.read_texts(tokens.to(codes.device), lengths)
        seen = c.context_length + self.cells - 1
        numbers = 2 * seen * c.decoder.width * len(self.blocks) + self.cells * self.image_head.out_features
        at_once = max(1, NUMBERS // numbers)
        found = torch.empty(len(codes) * len(tokens), device=codes.device)
        allowed = torch.ones(self.cells - 1, seen, dtype=torch.bool, device=codes.device).tril(c.context_length)
        plan = MaskPlan(allowed=allowed[None, None])
        for start in range(0, len(found), at_once):
            pairs = torch.arange(start, min(start + at_once, len(found)), device=codes.device)
            text, image = pairs // len(codes), pairs % len(codes)  # pairs of one text lie together
            found[pairs] = self._likelihood(read, first[text], text, codes[image], plan)
        return found.view(len(tokens), len(codes)).T

    def _likelihood(self, read: Cache, first: Tensor, text: Tensor, codes: Tensor, plan: MaskPlan) -> Tensor:
        """log p(codes | text) of pairs of a text that was read and an image."""
        branch = Cache(0)
        branch.layers = [layer.copy() for layer in read.layers]
        for layer in branch.layers:
            layer.own.select(text)
        states = first[:, None]
        if codes.shape[1] > 1:
            x = self.through(self.squares(codes[:, :-1]), plan, branch)
            states = torch.cat([states, self.norm_final(x)], 1)
        logits = self.image_head(states).float()
        chosen = logits.gather(2, codes[:, :, None])[:, :, 0]
        return (chosen - logits.logsumexp(2)).sum(1)

    @torch.no_grad()
    def image_prior(self, images: UInt8[Tensor, "i 3 h w"]) -> Float[Tensor, " i"]:
        """log p(codes of the image | no text)."""
        return self.score(images, *self._nothing(1))[:, 0]

    @torch.no_grad()
    def image_features(self, images: UInt8[Tensor, "i 3 h w"]) -> Float[Tensor, "i n d"]:
        """States of the codes behind no text, after the middle blocks (`features_after`)."""
        codes = self.codes(images)
        words = self.words(*self._nothing(len(codes)))
        depth = self.config.features_after or max(1, len(self.blocks) // 2)
        x = self.through(torch.cat([words, self.squares(codes)], 1), MaskPlan(is_causal=True), None, depth)
        return x[:, words.shape[1] :]

    @torch.no_grad()
    def generate_codes(
        self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"], how: Painting
    ) -> Int64[Tensor, "b n"]:
        """The codes of an image for each text, drawn one after the other; what was read is kept."""
        tokens = tokens.to(self.pad_embed.device)
        guidance = self.config.guidance if how.guidance is None else how.guidance
        chance = uniform(how.keys(len(tokens), tokens.device), "codes", self.cells)
        sides = 1 if guidance == 1 else 2  # beside each text, the same without it
        shown = torch.cat([lengths.cpu(), torch.zeros_like(lengths.cpu())]) if sides == 2 else lengths
        cache, last = self.read_texts(tokens.repeat(sides, 1), shown)
        drawn: list[Tensor] = []
        for i in range(self.cells):
            logits = self.image_head(last).float()
            if sides == 2:
                given, blind = logits.chunk(2)
                logits = guided(given, blind, guidance)
            drawn.append(draw_codes(logits, chance[:, i], how))
            if i < self.cells - 1:
                x = self.squares(drawn[-1][:, None].repeat(sides, 1), i)
                last = self.norm_final(self.through(x, None, cache)[:, 0])
        return torch.stack(drawn, 1)

    def generate_image(
        self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"], how: Painting
    ) -> UInt8[Tensor, "b 3 h w"]:
        """An image for each text. `how`: seed, guidance, temperature, top_k and top_p."""
        return self.paint_codes(self.generate_codes(tokens, lengths, how))

    def decay_free(self) -> set[str]:
        return {"pad_embed", "position_embed", "row_embed", "column_embed"} | {
            f"codec.{n}" for n in self.codec.decay_free()
        }

    def _nothing(self, rows: int) -> tuple[Tensor, Tensor]:
        """So many empty texts."""
        device = self.pad_embed.device
        return torch.zeros(rows, 0, dtype=torch.int64, device=device), torch.zeros(rows, dtype=torch.int64)
