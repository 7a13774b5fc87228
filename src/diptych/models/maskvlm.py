"""MaskVLM (Kwon et al., 2023, arXiv:2208.02131): each modality is masked while the other is intact, and helps.

Two towers, two encoders that look at the other modality, a decoder to pixels and a head to tokens. No tokenizer of
images. There is no official code; what the paper leaves open is said where it is decided.
"""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.func import functional_call

from diptych.core.errors import ConfigError
from diptych.models.blip2 import WritingHead
from diptych.models.crossing import CrossEncoder, PixelDecoder, cells_of, image_of
from diptych.models.embedder import Embedder
from diptych.models.image_reading import ImageReading, ImageReadingConfig
from diptych.models.model import ModelConfig
from diptych.models.pair_scores import log_odds
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.tower import ImageTowerConfig, TextTowerConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.nn.block import BlockConfig
from diptych.nn.embed import resize_position_embed
from diptych.nn.packing import to_longest
from diptych.nn.patch_masking import places_of
from diptych.nn.pool import masked_mean, take_first


class MaskVLMConfig(ModelConfig):
    """Settings of MaskVLM.

    image, text   the towers, of which tokens are read. A text tower must see both ways. An image tower's tokens must be
                  a square grid, with or without a CLS; hidden patches become its mask token, or of the mean colour
    embed_dim     of the contrastive vectors
    crossing      the blocks of both encoders that look at the other modality
    decoder       the blocks between the image's one and pixels; as wide
    positions     "learned": added to image tokens before they cross, for towers whose tokens do not know their places
                  where all around them is hidden (convolutions); "tower": left to the tower
    image_pooling, text_pooling  what stands for all of an image, of a text: the "first" token (CLS) or the "mean". So
                  for contrast, from the towers, and for matching, from the encoders, whose two vectors stand side by
                  side
    tied          logits of tokens from the text tower's own embeddings
    mask_id       the token that hides; -1: the one behind the vocabulary, for which the text tower has a row more
    scored_by     what `score` gives: the "matching" head's log-odds, or the "similarity", a cosine
    init_logit_scale, max_logit_scale  as in TwoTowerConfig
    """

    image: ImageTowerConfig = VisionTransformerConfig(mask_token=True)
    text: TextTowerConfig = TextTransformerConfig.bert(768, 12, 12)
    embed_dim: int = Field(default=256, gt=0)
    crossing: BlockConfig = BlockConfig(width=768, depth=3, heads=12)
    decoder: BlockConfig = BlockConfig(width=768, depth=3, heads=12)
    positions: Literal["tower", "learned"] = "tower"
    image_pooling: Literal["first", "mean"] = "first"
    text_pooling: Literal["first", "mean"] = "first"
    tied: bool = True
    mask_id: int = Field(default=-1, ge=-1)
    scored_by: Literal["matching", "similarity"] = "matching"
    init_logit_scale: float = math.log(1 / 0.07)
    max_logit_scale: float = Field(default=100.0, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> "MaskVLMConfig":
        if self.decoder.width != self.crossing.width:
            raise ValueError(
                f"MaskVLMConfig.decoder.width must be that of crossing, whose states it goes on from; got "
                f"{self.decoder.width} and {self.crossing.width}. Make them equal."
            )
        for name, blocks in (("crossing", self.crossing), ("decoder", self.decoder)):
            if blocks.cross_attention != "none" or blocks.context_width:
                raise ValueError(
                    f"MaskVLMConfig.{name}.cross_attention and context_width must be left out, for the model knows "
                    f"which blocks look at what; got {blocks.cross_attention!r} and {blocks.context_width}."
                )
        if getattr(self.text, "attention", "bidirectional") == "causal":
            raise ValueError(
                "MaskVLMConfig.text.attention must be 'bidirectional': a hidden token is told from both sides; got "
                "'causal'. Set text.attention=bidirectional, and a pooling that suits it."
            )
        return self

    def build(self, vocab_size: int) -> "MaskVLM":
        return MaskVLM(self, vocab_size)


class MaskVLM(Embedder):
    """`*_states` are the towers' tokens, `enter_*` makes them as wide as the encoders, `cross_*` looks at the other.

    A tower's own pooling and projection are kept and do not train: nothing is read of them. "Without" the other side it
    is looked at wholly hidden: an image of which every cell is masked, a text of one mask token.
    """

    config: MaskVLMConfig
    fill_unit = "mean absolute error of normalised pixels"

    def __init__(self, config: MaskVLMConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        c, width, resolution = config, config.crossing.width, config.image_format.resolution
        self.mask_id = vocab_size if c.mask_id < 0 else c.mask_id
        self.image_tower = c.image.build(resolution, c.embed_dim)
        self.text_tower = c.text.build(vocab_size + (c.mask_id < 0), c.context_length, c.embed_dim)
        given = ImageReading(ImageReadingConfig(), self.image_tower, resolution).given
        for name, parameter in self.image_tower.named_parameters():
            if name == "mask_token":  # the reading has seen whole images only
                parameter.requires_grad_(True)
        _freeze_unread(self.text_tower)
        self.prefix, self.side = _square(given.tokens, resolution, c)
        self.cell = resolution // self.side
        self.image_in = _fitting(given.width, width)
        self.text_in = _fitting(self.text_tower.width, width)
        learned = c.positions == "learned"
        self.image_position = nn.Parameter(torch.randn(given.tokens, width) * 0.02) if learned else None
        self.image_cross, self.text_cross = CrossEncoder(c.crossing), CrossEncoder(c.crossing)
        self.image_decoder = PixelDecoder(c.decoder, self.cell)
        self.writing_head = WritingHead(width, c.crossing.activation, c.crossing.norm_eps)
        self.text_out = _fitting(width, self._tied_width() if c.tied else width)
        self.head_weight = None if c.tied else nn.Parameter(torch.randn(vocab_size, width) * 0.02)
        self.head_bias = nn.Parameter(torch.zeros(vocab_size))
        self.image_projection = nn.Linear(given.width, c.embed_dim, bias=False)
        self.text_projection = nn.Linear(self.text_tower.width, c.embed_dim, bias=False)
        self.matching_head = nn.Linear(2 * width, 2)
        self.log_logit_scale = nn.Parameter(torch.tensor(c.init_logit_scale))
        for linear in (self.image_projection, self.text_projection):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)

    def image_states(
        self, pixels: Float[Tensor, "b 3 h w"], masked: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b p c"]:
        """The image tower's tokens of normalised images, of which the masked cells are hidden."""
        if masked is None:
            return self.image_tower.tokens(pixels)
        return self.image_tower.tokens_of_masked(pixels, masked)

    def text_states(self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, "b t c"]:
        """The text tower's tokens."""
        return self.text_tower.tokens(tokens, lengths)

    def image_unit(self, states: Float[Tensor, "b p c"]) -> Float[Tensor, "b e"]:
        """Unit vectors in float32, for contrast."""
        return F.normalize(self.image_projection(self._pooled_image(states)).float(), dim=-1)

    def text_unit(self, states: Float[Tensor, "b t c"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, "b e"]:
        """Unit vectors in float32, for contrast; `lengths` on the states' device."""
        return F.normalize(self.text_projection(self._pooled_text(states, lengths)).float(), dim=-1)

    def enter_image(self, states: Float[Tensor, "b p c"]) -> Float[Tensor, "b p d"]:
        """An image's states as the encoders read them."""
        x = self.image_in(states)
        if self.image_position is None:
            return x
        side = math.isqrt(states.shape[1] - self.prefix)
        return x + resize_position_embed(self.image_position, (side, side), self.prefix).to(x.dtype)

    def enter_text(self, states: Float[Tensor, "b t c"]) -> Float[Tensor, "b t d"]:
        """A text's states as the encoders read them."""
        return self.text_in(states)

    def cross_image(
        self, image: Float[Tensor, "b p d"], text: Float[Tensor, "b t d"], lengths: Int64[Tensor, " b"]
    ) -> Float[Tensor, "b p d"]:
        """An image's states that have looked at a text."""
        return self.image_cross(image, text, None, lengths)

    def cross_text(
        self, text: Float[Tensor, "b t d"], lengths: Int64[Tensor, " b"], image: Float[Tensor, "b p d"]
    ) -> Float[Tensor, "b t d"]:
        """A text's states that have looked at an image."""
        return self.text_cross(text, image, lengths, None)

    def pixels_at(self, crossed: Float[Tensor, "b p d"], places: Int64[Tensor, "b k"]) -> Float[Tensor, "b k c"]:
        """The normalised pixels of the cells at `places`."""
        return self.image_decoder(crossed, places, self.prefix)

    def written(self, crossed: Float[Tensor, "m d"]) -> Float[Tensor, "m h"]:
        """Of crossed states of tokens, what logits are linear in (`head`)."""
        return self.text_out(self.writing_head(crossed))

    def head(self) -> tuple[Float[Tensor, "v h"], Float[Tensor, " v"]]:
        """Weight and bias of the logits; the mask token has none."""
        if self.head_weight is not None:
            return self.head_weight, self.head_bias
        tower: Any = self.text_tower
        if hasattr(tower.token_embed.weight, "to_local"):  # a sharded tower's weights are whole inside of it only
            raise ConfigError(
                "train.sharding must be 'ddp' for a model whose logits come from its text tower's embeddings; got "
                "'fsdp'. Set model.tied=false, or keep all weights on every process."
            )
        return tower.token_embed.weight[: self.vocab_size], self.head_bias

    def matching_logits(
        self, image: Float[Tensor, "b p d"], text: Float[Tensor, "b t d"], lengths: Int64[Tensor, " b"]
    ) -> Float[Tensor, "b 2"]:
        """Logits of "no match" and "match", in float32, of images and texts that have entered."""
        seen = self._pooled_image(self.cross_image(image, text, lengths))
        read = self._pooled_text(self.cross_text(text, lengths, image), lengths)
        return self.matching_head(torch.cat([seen, read], dim=-1)).float()

    def encode_image(self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        return self.image_unit(self.image_states(self.normalise(images)))

    def encode_text(self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, "b e"]:
        return self.text_unit(self.text_states(tokens, lengths), lengths.to(tokens.device, non_blocking=True))

    @torch.no_grad()
    def image_features(self, images: UInt8[Tensor, "i 3 h w"]) -> Float[Tensor, "i p d"]:
        """The tokens that stand for an image: the tower's."""
        return self.image_states(self.normalise(images))

    @torch.no_grad()
    def score(
        self, images: UInt8[Tensor, "i 3 h w"], tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]
    ) -> Float[Tensor, "i b"]:
        """Of every image and every text: the matching head's log-odds, or the cosine."""
        if self.config.scored_by == "similarity":
            return super().score(images, tokens, lengths)
        tokens, lengths = to_longest(tokens, lengths)
        image = self.enter_image(self.image_features(images))
        text, sizes = self.enter_text(self.text_states(tokens, lengths)), lengths.to(tokens.device)
        return log_odds(self.matching_logits, image, text, sizes)

    def fill_grid(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return self.side, self.side

    @torch.no_grad()
    def fill_image(
        self,
        images: UInt8[Tensor, "b 3 h w"],
        masked: Bool[Tensor, "b n"],
        tokens: Int64[Tensor, "b t"] | None,
        lengths: Int64[Tensor, " b"] | None,
    ) -> Float[Tensor, "b n"]:
        """The mean absolute error of each hidden cell's normalised pixels; 0 of the others."""
        pixels = self.normalise(images)
        away = (self._painted(pixels, masked, tokens, lengths) - cells_of(pixels, self.cell).float()).abs().mean(-1)
        return torch.where(masked, away, 0.0)

    @torch.no_grad()
    def fill_text(
        self,
        tokens: Int64[Tensor, "b t"],
        lengths: Int64[Tensor, " b"],
        masked: Bool[Tensor, "b t"],
        images: UInt8[Tensor, "b 3 h w"] | None,
    ) -> Float[Tensor, "b t"]:
        """-log p of each hidden token; 0 of the others."""
        hidden = torch.where(masked, self.mask_id, tokens)
        if images is None:
            side = self.config.image_format.resolution
            blank = torch.zeros(len(tokens), 3, side, side, device=tokens.device, dtype=self.pixel_mean.dtype)
            every = torch.ones(len(tokens), self.side**2, dtype=torch.bool, device=tokens.device)
            image = self.enter_image(self.image_states(blank, every))
        else:
            image = self.enter_image(self.image_states(self.normalise(images)))
        text, sizes = self.enter_text(self.text_states(hidden, lengths)), lengths.to(tokens.device)
        weight, bias = self.head()
        crossed = self.written(self.cross_text(text, sizes, image)[masked])
        logits = F.linear(crossed, weight.to(crossed.dtype)).float() + bias.float()
        nll = F.cross_entropy(logits, tokens[masked], reduction="none")
        return torch.zeros(tokens.shape, device=tokens.device).masked_scatter(masked, nll)

    @torch.no_grad()
    def rebuild(
        self,
        images: UInt8[Tensor, "b 3 h w"],
        masked: Bool[Tensor, "b n"],
        tokens: Int64[Tensor, "b t"] | None,
        lengths: Int64[Tensor, " b"] | None,
    ) -> UInt8[Tensor, "b 3 h w"]:
        """The images with their hidden cells as they are rebuilt, beside these texts or (None) without."""
        pixels = self.normalise(images)
        rows = pixels.shape[-2] // self.cell
        painted = image_of(self._painted(pixels, masked, tokens, lengths), self.cell, rows)
        colours = ((painted * self.pixel_std + self.pixel_mean) * 255).round().clamp(0, 255).to(torch.uint8)
        hidden = image_of(masked[..., None].expand(-1, -1, 3 * self.cell**2).float(), self.cell, rows) > 0
        return torch.where(hidden, colours, images)

    def decay_free(self) -> set[str]:
        """Positions and probes of the towers, and positions of image tokens."""
        names = {f"image_tower.{n}" for n in self.image_tower.decay_free()}
        names |= {f"text_tower.{n}" for n in self.text_tower.decay_free()}
        return names | (set() if self.image_position is None else {"image_position"})

    def _painted(self, pixels: Tensor, masked: Tensor, tokens: Tensor | None, lengths: Tensor | None) -> Tensor:
        """All cells (b n c) as they are rebuilt from those that are not masked and from the texts."""
        if tokens is None or lengths is None:
            tokens = torch.full((len(pixels), 1), self.mask_id, device=pixels.device)
            lengths = torch.ones(len(pixels), dtype=torch.int64)
        image = self.enter_image(self.image_states(pixels, masked))
        text, sizes = self.enter_text(self.text_states(tokens, lengths)), lengths.to(pixels.device)
        every = places_of(torch.ones_like(masked), masked.shape[1])
        return self.pixels_at(self.cross_image(image, text, sizes), every).float()

    def _pooled_image(self, states: Tensor) -> Tensor:
        return states[:, 0] if self.config.image_pooling == "first" else states.mean(1)

    def _pooled_text(self, states: Tensor, lengths: Tensor) -> Tensor:
        return (take_first if self.config.text_pooling == "first" else masked_mean)(states, lengths)

    def _tied_width(self) -> int:
        table = getattr(self.text_tower, "token_embed", None)
        if table is None:
            raise ConfigError(
                f"model.tied must be false for a {type(self.text_tower).__name__}, whose embeddings are not at hand; "
                "got true. Set model.tied=false."
            )
        return int(table.weight.shape[1])


def _fitting(given: int, wanted: int) -> nn.Module:
    """Nothing where the widths agree already, as in the paper."""
    return nn.Identity() if given == wanted else nn.Linear(given, wanted)


def _square(tokens: int, resolution: int, config: MaskVLMConfig) -> tuple[int, int]:
    """How many tokens come before the cells, and the cells' rows."""
    for prefix in (0, 1):
        side = math.isqrt(tokens - prefix)
        if side and side * side == tokens - prefix and resolution % side == 0:
            if config.image_pooling == "first" and not prefix:
                raise ConfigError(
                    "model.image_pooling must be 'mean' for an image tower without a CLS token; got 'first'. "
                    "Set model.image_pooling=mean."
                )
            return prefix, side
    raise ConfigError(
        f"model.image must be a tower whose tokens are a square grid of cells that divides the resolution; got "
        f"{tokens} tokens at {resolution} pixels. Change image_format.resolution or the tower's stride."
    )


def _freeze_unread(tower: nn.Module) -> None:
    """Parameters of a text tower that its tokens do not depend on (pooler, projection) are kept, and do not train."""
    reads = _ReadsText(tower)
    state = {n: t.detach().to("meta") for n, t in [*reads.named_parameters(), *reads.named_buffers()]}
    parameters = {n: state[n].requires_grad_() for n, _ in reads.named_parameters()}
    tokens = torch.zeros(2, 3, dtype=torch.int64, device="meta")
    with torch.enable_grad():
        out = functional_call(reads, state, (tokens, torch.tensor([3, 3])))
        found = torch.autograd.grad(out.sum(), list(parameters.values()), allow_unused=True)
    unread = {n for n, g in zip(parameters, found, strict=True) if g is None}
    for name, parameter in reads.named_parameters():
        if name in unread:
            parameter.requires_grad_(False)


class _ReadsText(nn.Module):
    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        with torch.enable_grad():
            return self.tower.tokens(tokens, lengths)
