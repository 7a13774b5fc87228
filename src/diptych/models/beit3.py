"""BEiT-3 (Wang et al., 2022, arXiv:2208.10442): one multiway transformer over an image's patches and a text's tokens.

It fills in what is hidden of either (`objectives/masked_data.py`), alone or beside the other. A later stage makes it a
dual encoder of the same weights: an image by itself and a text by itself, whose first tokens become unit vectors.
"""

import math
from typing import Any, Literal, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from pydantic import Field
from torch import Tensor, nn

from diptych.core.errors import ConfigError, DataError
from diptych.models.codecs.codec import CodecConfig, ImageTokenizer
from diptych.models.embedder import Embedder
from diptych.models.image_reading import ImageReading, ImageReadingConfig
from diptych.models.model import ModelConfig
from diptych.models.tower import ImageTowerConfig
from diptych.nn.embed import PatchEmbed, resize_position_embed
from diptych.nn.mask import Layout, MaskPlan, padding
from diptych.nn.multiway import MultiwayConfig, build_multiway, init_magneto
from diptych.nn.norm import build_norm
from diptych.nn.patch_masking import hide_pixels
from diptych.nn.pool import masked_mean

ROWS = 256
"""Rows (an image beside a text with some tokens hidden) that are read at once where likelihoods are asked for."""
Self = TypeVar("Self", bound="BEiT3")


class BEiT3Config(ModelConfig):
    """Settings of BEiT-3.

    blocks             the multiway transformer
    patch_size         of the linear patch embedding
    stem               None; or a tower whose tokens stand in the place of the patches: with convolutions, few samples
                       suffice at small sizes. Hidden patches are then of the mean colour before it, and the mask token
                       behind it, so that nothing of them is seen
    codec              the image tokenizer whose codes hidden patches are to become, in as large a grid; None: none,
                       as in weights that are not pretrained any further
    embed_dim          of the vectors that are compared
    pooling            what they come from: "cls", the image's CLS and the text's first token; "mean" of the patches,
                       and of the real tokens
    norm_final         a norm behind the blocks
    tied               whether tokens are foreseen with the token embedding as the map to logits
    mask_id            of the token that stands for hidden ones; -1: one beyond the vocabulary
    position_offset    rows of the position tables that are never used (2 in weights from fairseq)
    scored_by          what `score` gives: the "similarity", a cosine; or the "likelihood" of the text given the image
    likelihood_passes  for that: 0: each token is hidden alone in turn; k: every k-th token is, in k passes
    init_logit_scale, max_logit_scale  as in TwoTowerConfig
    """

    blocks: MultiwayConfig = MultiwayConfig()
    patch_size: int = Field(default=16, gt=0)
    stem: ImageTowerConfig | None = None
    codec: CodecConfig | None = None
    embed_dim: int = Field(default=768, gt=0)
    pooling: Literal["cls", "mean"] = "cls"
    norm_final: bool = True
    tied: bool = False
    mask_id: int = Field(default=-1, ge=-1)
    position_offset: int = Field(default=0, ge=0)
    scored_by: Literal["similarity", "likelihood"] = "similarity"
    likelihood_passes: int = Field(default=0, ge=0)
    init_logit_scale: float = math.log(1 / 0.07)
    max_logit_scale: float = Field(default=100.0, ge=1)

    def build(self, vocab_size: int) -> "BEiT3":
        return BEiT3(self, vocab_size)


class States(NamedTuple):
    """What comes out for an image (its CLS first) and for a text; None for what was not given."""

    image: Float[Tensor, "b p d"] | None
    text: Float[Tensor, "b t d"] | None


class ImageEmbed(nn.Module):
    """CLS and patches with their positions; hidden patches are one learned vector."""

    def __init__(self, config: BEiT3Config) -> None:
        super().__init__()
        c, width, side = config, config.blocks.width, config.image_format.resolution
        self.stem: nn.Module | None = None
        if c.stem is None:
            self.patch_embed = PatchEmbed(width, c.patch_size, bias=True)
            self.grid = self.patch_embed.grid(side, side)
        else:
            self.stem = c.stem.build(side, width)
            self.reading = ImageReading(ImageReadingConfig(cls=False), self.stem, side)
            self.proj = nn.Linear(self.reading.given.width, width)
            across = math.isqrt(self.reading.given.tokens)
            self.grid = (across, across)
        self.offset = c.position_offset
        self.cls_token = nn.Parameter(torch.randn(width) * 0.02)
        self.mask_token = nn.Parameter(torch.randn(width) * 0.02)
        places = self.offset + 1 + self.grid[0] * self.grid[1]
        self.position_embed = nn.Parameter(torch.randn(places, width) * 0.02)

    def forward(
        self, images: Float[Tensor, "b 3 h w"], masked: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b p d"]:
        """Of normalised pixels, any size."""
        if self.stem is None:
            grid, x = self.patch_embed.grid(*images.shape[-2:]), self.patch_embed(images)
        else:
            tower: Any = self.stem
            x = self.proj(self.reading(tower, images if masked is None else hide_pixels(images, masked)))
            grid = (math.isqrt(x.shape[1]),) * 2
        if masked is not None:
            x = torch.where(masked[..., None], self.mask_token.to(x.dtype), x)
        x = torch.cat([self.cls_token.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
        return x + resize_position_embed(self.position_embed, grid, self.offset + 1)[self.offset :].to(x.dtype)


class TextEmbed(nn.Module):
    """Tokens with their positions."""

    def __init__(self, config: BEiT3Config, rows: int) -> None:
        super().__init__()
        self.context_length, self.offset = config.context_length, config.position_offset
        self.token_embed = nn.Embedding(rows, config.blocks.width)
        self.position_embed = nn.Parameter(torch.randn(self.offset + self.context_length, config.blocks.width) * 0.02)
        nn.init.normal_(self.token_embed.weight, std=0.02)

    def forward(self, tokens: Int64[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        if tokens.shape[1] > self.context_length:
            raise DataError(
                f"a text must have at most {self.context_length} tokens, the model's context_length; got "
                f"{tokens.shape[1]}. Truncate with the model's own tokenizer."
            )
        return self.token_embed(tokens) + self.position_embed[self.offset :][: tokens.shape[1]]


class BEiT3(Embedder):
    """image_embed and text_embed -> blocks -> code_head for patches, token_head for tokens, projections of both.

    The codec is never trained here, and stays in eval mode. `fill_unit`: see models/capabilities.py.
    """

    config: BEiT3Config
    fill_unit = "nats a code"

    def __init__(self, config: BEiT3Config, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        c, b = config, config.blocks
        self.mask_id = vocab_size if c.mask_id < 0 else c.mask_id
        self.image_embed = ImageEmbed(c)
        self.text_embed = TextEmbed(c, max(vocab_size, self.mask_id + 1))
        self.blocks = build_multiway(b)
        kinds = ("image", "text") if b.attention_experts == "separate" else ("both",)
        self.norms = nn.ModuleDict({k: build_norm(b.norm, b.width, b.norm_eps) for k in kinds if c.norm_final})
        self.codec, self.code_head = self._coding(c)
        self.token_head = None if c.tied else nn.Linear(b.width, vocab_size, bias=False)
        self.token_bias = nn.Parameter(torch.zeros(vocab_size))
        self.image_projection = nn.Linear(b.width, c.embed_dim, bias=False)
        self.text_projection = nn.Linear(b.width, c.embed_dim, bias=False)
        self.log_logit_scale = nn.Parameter(torch.tensor(c.init_logit_scale))
        init_magneto(self.blocks, b.depth)
        for head in (self.code_head, self.token_head):
            if head is not None:
                nn.init.normal_(head.weight, std=0.02)
        for projection in (self.image_projection, self.text_projection):
            nn.init.normal_(projection.weight, std=b.width**-0.5)

    def _coding(self, c: BEiT3Config) -> tuple[ImageTokenizer | None, nn.Linear | None]:
        """The codec, at rest, and the map from states to its codes."""
        if c.codec is None:
            return None, None
        codec = c.codec.build()
        if not isinstance(codec, ImageTokenizer) or codec.grid != self.image_embed.grid:
            raise ConfigError(
                f"BEiT3Config.codec must be an image tokenizer with a code for each of the {self.image_embed.grid} "
                f"patches; got a {type(codec).__name__} of {codec.grid}. Change its side or the patch_size."
            )
        codec.requires_grad_(False)
        return codec, nn.Linear(c.blocks.width, codec.codebook_size)

    def train(self: Self, mode: bool = True) -> Self:
        """Training mode, or not, for all but the codec."""
        super().train(mode)
        if self.codec is not None:
            self.codec.eval()
        return self

    def embed_pixels(
        self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"], masked: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b p d"]:
        """What of images of 0..255 goes into the transformer, with some patches hidden."""
        return self.image_embed(self.normalise(images), masked)

    def through(
        self,
        image: Float[Tensor, "b p d"] | None,
        text: Float[Tensor, "b t d"] | None,
        lengths: Int64[Tensor, " b"] | None = None,
    ) -> States:
        """Embeddings through all blocks and the last norm: images by themselves, texts of `lengths` tokens by
        themselves, or each image beside a text."""
        given = [x for x in (image, text) if x is not None]
        images = 0 if image is None else image.shape[1]
        x = given[0] if len(given) == 1 else torch.cat([given[0], given[1].to(given[0].dtype)], dim=1)
        mask = None if text is None or lengths is None else seen_by_all(lengths, images, text.shape[1], x.device)
        for block in self.blocks:
            x = block(x, images, mask)
        found_image, found_text = self._normed("image", x[:, :images]), self._normed("text", x[:, images:])
        return States(None if image is None else found_image, None if text is None else found_text)

    def states(
        self,
        images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"] | None = None,
        tokens: Int64[Tensor, "b t"] | None = None,
        lengths: Int64[Tensor, " b"] | None = None,
        masked: Bool[Tensor, "b n"] | None = None,
    ) -> States:
        """`through` of pixels of 0..255, of which some patches are hidden, and of token ids."""
        image = None if images is None else self.embed_pixels(images, masked)
        return self.through(image, None if tokens is None else self.text_embed(tokens), lengths)

    def codes(self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"]) -> Int64[Tensor, "b n"]:
        """The codec's codes, in full precision whatever is around, so that they are the same every time."""
        with torch.no_grad(), torch.autocast(self.pixel_mean.device.type, enabled=False):
            return self._codec().codes(images)

    def heads(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """(weight, bias) of the map from states to logits of codes, and of the one to logits of tokens."""
        self._codec()
        assert self.code_head is not None
        return (self.code_head.weight, self.code_head.bias), (self._token_weight(), self.token_bias)

    def token_logits(self, hidden: Float[Tensor, "*n d"]) -> Float[Tensor, "*n v"]:
        """What states of a text say of its tokens."""
        return F.linear(hidden, self._token_weight(), self.token_bias)

    def encode_image(self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        """Unit vectors in fp32."""
        x = self.states(images).image
        assert x is not None
        pooled = x[:, 0] if self.config.pooling == "cls" else x[:, 1:].mean(1)
        return F.normalize(self.image_projection(pooled).float(), dim=-1)

    def encode_text(self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, "b e"]:
        """Unit vectors in fp32."""
        x = self.states(None, tokens, lengths).text
        assert x is not None
        pooled = x[:, 0] if self.config.pooling == "cls" else masked_mean(x, lengths.to(x.device))
        return F.normalize(self.text_projection(pooled).float(), dim=-1)

    def image_features(self, images: UInt8[Tensor, "i 3 h w"]) -> Float[Tensor, "i p d"]:
        """The states of the patches of images by themselves, without CLS, which pretraining asks nothing of."""
        x = self.states(images).image
        assert x is not None
        return x[:, 1:]

    def score(
        self, images: UInt8[Tensor, "i 3 h w"], tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]
    ) -> Float[Tensor, "i b"]:
        """The cosine, or `log_likelihood`, as `scored_by` says."""
        if self.config.scored_by == "likelihood":
            return self.log_likelihood(images, tokens, lengths)
        return super().score(images, tokens, lengths)

    @torch.no_grad()
    def log_likelihood(
        self, images: UInt8[Tensor, "i 3 h w"], tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]
    ) -> Float[Tensor, "i b"]:
        """The masked log-likelihood of each text beside each image (Salazar et al., 2020, arXiv:1910.14659, eq. 1): the
        sum over its tokens, but the first and the last, of log p(token | the others, image), hidden in turn."""
        return self._likelihoods(self.embed_pixels(images), tokens, lengths)

    @torch.no_grad()
    def text_prior(self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, " b"]:
        """The same of texts by themselves."""
        return self._likelihoods(None, tokens, lengths)[0]

    def fill_grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image_embed.grid

    @torch.no_grad()
    def fill_image(
        self,
        images: UInt8[Tensor, "b 3 h w"],
        masked: Bool[Tensor, "b n"],
        tokens: Int64[Tensor, "b t"] | None,
        lengths: Int64[Tensor, " b"] | None,
    ) -> Float[Tensor, "b n"]:
        """-log p(code) of each hidden patch, from the others and the text."""
        x, codes = self.states(images, tokens, lengths, masked).image, self.codes(images)
        assert x is not None
        assert self.code_head is not None
        log_p = self.code_head(x[:, 1:]).float().log_softmax(-1).gather(2, codes[..., None])[..., 0]
        return torch.where(masked, -log_p, 0.0)

    @torch.no_grad()
    def fill_text(
        self,
        tokens: Int64[Tensor, "b t"],
        lengths: Int64[Tensor, " b"],
        masked: Bool[Tensor, "b t"],
        images: UInt8[Tensor, "b 3 h w"] | None,
    ) -> Float[Tensor, "b t"]:
        """-log p(token) of each hidden token, from the others and the image."""
        x = self.states(images, torch.where(masked, self.mask_id, tokens), lengths).text
        assert x is not None
        log_p = self.token_logits(x).float().log_softmax(-1).gather(2, tokens[..., None])[..., 0]
        return torch.where(masked, -log_p, 0.0)

    def decay_free(self) -> set[str]:
        """Both position tables; CLS and mask tokens have one dimension."""
        stem: Any = self.image_embed.stem
        inside = set() if stem is None else {f"image_embed.stem.{n}" for n in stem.decay_free()}
        return {"image_embed.position_embed", "text_embed.position_embed"} | inside

    def _codec(self) -> ImageTokenizer:
        if self.codec is None:
            raise ConfigError(
                "model.codec must be an image tokenizer, for hidden patches are filled in by its codes; got none. Name "
                "one: parts.codec=FOLDER#, of a trained codec."
            )
        return self.codec

    def _token_weight(self) -> Tensor:
        if self.token_head is None:
            return self.text_embed.token_embed.weight[: self.vocab_size]
        return self.token_head.weight

    def _normed(self, kind: str, x: Tensor) -> Tensor:
        if not len(self.norms):
            return x
        return self.norms["both" if "both" in self.norms else kind](x)

    def _likelihoods(self, image: Tensor | None, tokens: Tensor, lengths: Tensor) -> Tensor:
        """(i, b), or (1, b) without images. A row is a text with some of its tokens hidden, beside an image."""
        device, known = self.pixel_mean.device, lengths.cpu()
        tokens, inside = tokens.to(device), (known - 2).clamp(min=0)
        every = self.config.likelihood_passes or max(int(inside.max()) if len(inside) else 1, 1)
        passes = inside.clamp(max=every)
        text = torch.arange(len(tokens)).repeat_interleave(passes)  # of each row for one image, and its pass
        first = torch.cat([torch.arange(n) for n in passes.tolist()]) if len(passes) else text
        count = 1 if image is None else len(image)
        found = torch.zeros(count * len(tokens), device=device)
        if not len(text):
            return found.view(count, len(tokens))
        place = torch.arange(tokens.shape[1]) - 1
        for row in torch.arange(count * len(text)).split(ROWS):
            of_image, of_text, start = row // len(text), text[row % len(text)], first[row % len(text)]
            hidden = (place >= 0) & (place < inside[of_text][:, None]) & (place % every == start[:, None])
            said, at = tokens[of_text.to(device)], hidden.to(device)
            beside = None if image is None else image[of_image.to(device)]
            x = self.through(beside, self.text_embed(torch.where(at, self.mask_id, said)), known[of_text]).text
            assert x is not None
            log_p = self.token_logits(x[at]).float().log_softmax(-1).gather(1, said[at][:, None])[:, 0]
            pair = (of_image * len(tokens) + of_text)[:, None].expand_as(hidden)[hidden]
            found.index_add_(0, pair.to(device), log_p)
        return found.view(count, len(tokens))


def seen_by_all(lengths: Int64[Tensor, " b"], images: int, width: int, device: torch.device) -> MaskPlan | None:
    """Every token sees an image's `images` tokens and the real ones of a text padded to `width`; None: all are real."""
    if lengths.device.type == "cpu" and bool((lengths == width).all()):
        return None
    return padding().plan(Layout.of_lengths(images + lengths.to(device, non_blocking=True), images + width))
