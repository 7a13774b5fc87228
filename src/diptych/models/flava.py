"""FLAVA (Singh et al., 2022, arXiv:2112.04482): an image encoder, a text encoder, and a third that reads both.

Each encoder fills in what was hidden of its own side; the third, over both sides' states, fills in either with the help
of the other and says whether the two belong together. Unit vectors come from the two encoders alone.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from pydantic import Field, model_validator
from torch import Tensor, nn

from diptych.core.errors import ConfigError
from diptych.models.codecs.codec import Codec, CodecConfig, ImageTokenizer
from diptych.models.embedder import Embedder
from diptych.models.model import ModelConfig
from diptych.models.pair_scores import log_odds
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.tower import ImageTower, ImageTowerConfig
from diptych.models.vision_transformer import VisionTransformer, VisionTransformerConfig
from diptych.nn.block import BlockConfig, build_blocks, init_default, through_blocks
from diptych.nn.mask import Layout, padding
from diptych.nn.mlp import Activation, activate
from diptych.nn.norm import build_norm
from diptych.nn.packing import to_longest


def base_image() -> VisionTransformerConfig:
    """ViT-B/16 with a mask token, as the paper has it."""
    return VisionTransformerConfig(
        norm_eps=1e-12, norm_pre=False, patch_bias=True, projection="linear_bias", mask_token=True
    )


def base_text() -> TextTransformerConfig:
    """A ViT's blocks over BERT's embeddings (a norm behind them), the first token pooled."""
    return TextTransformerConfig(
        width=768,
        depth=12,
        heads=12,
        norm_eps=1e-12,
        norm_pre=True,
        attention="bidirectional",
        pooling="cls",
        projection="linear_bias",
    )


class FlavaConfig(ModelConfig):
    """Settings of FLAVA.

    image          the image encoder; without a mask token of its own, hidden cells are of the mean colour
    text           the text encoder
    fusion         the blocks over both
    codec          what says which code stands for each cell of an image, frozen; its grid must be that of the image
                   encoder's tokens. None: a model that cannot be trained further by objectives.flava
    codebook_size  codes to choose from, where no codec says so
    embed_dim      size of the unit vectors
    mask_id        id of the mask token; -1: one beyond the vocabulary
    scored_by      what `score` gives: the "similarity", a cosine, or the "matching" head's log-odds
    init_logit_scale, max_logit_scale  of the temperature, as in TwoTowerConfig
    """

    image: ImageTowerConfig = base_image()
    text: TextTransformerConfig = base_text()
    fusion: BlockConfig = BlockConfig(width=768, depth=6, heads=12, norm_eps=1e-12)
    codec: CodecConfig | None = None
    codebook_size: int = Field(default=8192, gt=0)
    embed_dim: int = Field(default=768, gt=0)
    mask_id: int = Field(default=-1, ge=-1)
    scored_by: Literal["similarity", "matching"] = "similarity"
    init_logit_scale: float = math.log(1 / 0.07)
    max_logit_scale: float = Field(default=100.0, ge=1)

    @model_validator(mode="after")
    def _sees_all(self) -> "FlavaConfig":
        if self.text.attention != "bidirectional" or self.text.pooling == "last":
            raise ValueError(
                f"FlavaConfig.text must see the whole text and no padding (attention=bidirectional, pooling=cls, mean "
                f"or eos); got {self.text.attention} and {self.text.pooling}. A hidden token is foreseen from both "
                f"sides of it."
            )
        if getattr(self.image, "patch_dropout", 0.0) > 0:
            raise ValueError("FlavaConfig.image.patch_dropout must be 0; every cell of an image has its code to find.")
        return self

    def build(self, vocab_size: int) -> "Flava":
        return Flava(self, vocab_size)


class MaskedHead(nn.Module):
    """From states to what foresees (`forward`: a linear map, the activation, a norm), and the last linear map,
    `decoder`, whose logits the loss forms some rows at a time."""

    def __init__(self, width: int, outputs: int, activation: Activation, eps: float) -> None:
        super().__init__()
        self.activation = activation
        self.dense, self.norm = nn.Linear(width, width), build_norm("layer", width, eps)
        self.decoder = nn.Linear(width, outputs)
        for linear in (self.dense, self.decoder):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Float[Tensor, "*s d"]) -> Float[Tensor, "*s d"]:
        return self.norm(activate(self.dense(x), self.activation))

    def nll(self, x: Float[Tensor, "n d"], targets: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
        """-log p of each target, in float32, by all logits: for use, not for training."""
        return F.cross_entropy(self.decoder(self(x)).float(), targets, reduction="none")


class MatchingHead(nn.Module):
    """Logits of "no match" and "match" from the fused CLS token: BERT's pooler, then a linear map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pooler, self.classifier = nn.Linear(width, width), nn.Linear(width, 2)

    def forward(self, cls: Float[Tensor, "n d"]) -> Float[Tensor, "n 2"]:
        return self.classifier(self.pooler(cls).tanh()).float()


class Fusion(nn.Module):
    """Blocks over a learned CLS token, an image's states and a text's, each brought to one width."""

    def __init__(self, config: BlockConfig, image_width: int, text_width: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(config.width) * 0.02)
        self.image_projection = nn.Linear(image_width, config.width)
        self.text_projection = nn.Linear(text_width, config.width)
        self.blocks = build_blocks(config)
        self.norm = build_norm(config.norm, config.width, config.norm_eps)
        init_default(self.blocks)

    def forward(
        self, image: Float[Tensor, "b p i"], text: Float[Tensor, "b t j"], lengths: Int64[Tensor, " b"]
    ) -> Float[Tensor, "b s d"]:
        """The states of [CLS, image, text], after the last norm; the text is right-padded."""
        image, text = self.image_projection(image), self.text_projection(text)
        x = torch.cat([self.cls_token.to(image.dtype).expand(len(image), 1, -1), image, text], dim=1)
        before = 1 + image.shape[1]
        mask = padding().plan(Layout.of_lengths(before + lengths.to(x.device), x.shape[1]))
        return self.norm(through_blocks(self.blocks, x, mask))


class Flava(Embedder):
    """image_tower and text_tower apart; fusion over both. Heads: mim and mlm on the towers' own states, image and text
    on the fused ones, matching on the fused CLS.

    fill_unit: of a cell, -log p of its code.
    """

    config: FlavaConfig
    codec: Codec | None
    fill_unit = "nats a code"

    def __init__(self, config: FlavaConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        c = config
        rows = vocab_size + 1 if c.mask_id < 0 else vocab_size
        self.mask_id = vocab_size if c.mask_id < 0 else c.mask_id
        self.image_tower = c.image.build(c.image_format.resolution, c.embed_dim)
        self.text_tower = c.text.build(rows, c.context_length, c.embed_dim)
        self.fusion = Fusion(c.fusion, self.image_tower.width, c.text.width)
        self.codec = None if c.codec is None else c.codec.build()
        self.grid, self.prefix = _grid(self.image_tower, c.image_format.resolution)
        codes, f = self._codebook_size(), c.fusion
        eps = getattr(c.image, "norm_eps", f.norm_eps)
        self.mim_head = MaskedHead(self.image_tower.width, codes, f.activation, eps)
        self.mlm_head = MaskedHead(c.text.width, rows, f.activation, c.text.norm_eps)
        self.image_head = MaskedHead(f.width, codes, f.activation, f.norm_eps)
        self.text_head = MaskedHead(f.width, rows, f.activation, f.norm_eps)
        self.matching_head = MatchingHead(f.width)
        self.log_logit_scale = nn.Parameter(torch.tensor(c.init_logit_scale))
        if self.codec is not None:
            self.codec.requires_grad_(False)

    def train(self, mode: bool = True) -> "Flava":
        """Training mode, or not, for all but the codec, which rests."""
        super().train(mode)
        if self.codec is not None:
            self.codec.eval()
        return self

    def encode_image(self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        return F.normalize(self.image_tower(self.normalise(images)).float(), dim=-1)

    def encode_text(self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, "b e"]:
        return F.normalize(self.text_tower(tokens, lengths).float(), dim=-1)

    def image_states(
        self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"], masked: Bool[Tensor, "b n"] | None = None
    ) -> tuple[Float[Tensor, "b p d"], Float[Tensor, "b p d"]]:
        """The tower's states of images, with the cells that are `masked` hidden: as `fusion` reads them, before the
        last norm, and after it. A tower that has no such norm gives the same twice."""
        tower, x = self.image_tower, self.normalise(images)
        if isinstance(tower, VisionTransformer):
            return tower.states(x, masked)
        states = tower.tokens(x) if masked is None else tower.tokens_of_masked(x, masked)
        return states, states

    def text_states(
        self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]
    ) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b t d"]]:
        """The tower's states of texts before the last norm, as `fusion` reads them, and after it."""
        return self.text_tower.states(tokens, lengths)

    def cells_of(self, states: Float[Tensor, "b s d"], fused: bool) -> Float[Tensor, "b n d"]:
        """The states of the image's cells: behind the tower's CLS and, of `fused` ones, behind that of the fusion."""
        first = self.prefix + fused
        return states[:, first : first + self.grid[0] * self.grid[1]]

    def text_of(self, fused: Float[Tensor, "b s d"], width: int) -> Float[Tensor, "b {width} d"]:
        """The fused states of the text: the last `width`."""
        return fused[:, fused.shape[1] - width :]

    def codes(self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"]) -> Int64[Tensor, "b n"]:
        """The codes that the codec has for images of 0..255."""
        if not isinstance(self.codec, ImageTokenizer):
            raise ConfigError(
                "model.codec must be an image tokenizer where codes are to be foreseen; got none. Train one first "
                "(objectives/codec.py), and take it by parts.codec=FOLDER#."
            )
        with torch.no_grad():
            return self.codec.codes(images)

    @torch.no_grad()
    def image_features(self, images: UInt8[Tensor, "i 3 h w"]) -> Float[Tensor, "i p d"]:
        """The image tower's tokens."""
        return self.image_states(images)[1]

    @torch.no_grad()
    def score(
        self, images: UInt8[Tensor, "i 3 h w"], tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]
    ) -> Float[Tensor, "i b"]:
        """Of every image and every text: the cosine, or the matching head's log-odds."""
        if self.config.scored_by == "similarity":
            return super().score(images, tokens, lengths)
        tokens, lengths = to_longest(tokens, lengths)
        image, text = self.image_states(images)[0], self.text_states(tokens, lengths)[0]
        return log_odds(lambda *pairs: self.matching_head(self.fusion(*pairs)[:, 0]), image, text, lengths)

    def fill_grid(self) -> tuple[int, int]:
        """Rows and columns of an image's cells."""
        return self.grid

    @torch.no_grad()
    def fill_image(
        self,
        images: UInt8[Tensor, "b 3 h w"],
        masked: Bool[Tensor, "b n"],
        tokens: Int64[Tensor, "b t"] | None,
        lengths: Int64[Tensor, " b"] | None,
    ) -> Float[Tensor, "b n"]:
        """-log p of each hidden cell's code; with a text from the fused states, without from the tower's own."""
        states, normed = self.image_states(images, masked)
        head, cells = self.mim_head, self.cells_of(normed, fused=False)
        if tokens is not None and lengths is not None:
            fused = self.fusion(states, self.text_states(tokens, lengths)[0], lengths)
            head, cells = self.image_head, self.cells_of(fused, fused=True)
        nll = head.nll(cells.flatten(0, 1), self.codes(images).flatten()).view(masked.shape)
        return nll.masked_fill(~masked, 0.0)

    @torch.no_grad()
    def fill_text(
        self,
        tokens: Int64[Tensor, "b t"],
        lengths: Int64[Tensor, " b"],
        masked: Bool[Tensor, "b t"],
        images: UInt8[Tensor, "b 3 h w"] | None,
    ) -> Float[Tensor, "b t"]:
        """-log p of each hidden token; with an image from the fused states, without from the tower's own."""
        states, normed = self.text_states(tokens.masked_fill(masked, self.mask_id), lengths)
        head, words = self.mlm_head, normed
        if images is not None:
            fused = self.fusion(self.image_states(images)[0], states, lengths)
            head, words = self.text_head, self.text_of(fused, tokens.shape[1])
        nll = head.nll(words.flatten(0, 1), tokens.flatten()).view(masked.shape)
        return nll.masked_fill(~masked, 0.0)

    def decay_free(self) -> set[str]:
        return {f"image_tower.{n}" for n in self.image_tower.decay_free()} | {
            f"text_tower.{n}" for n in self.text_tower.decay_free()
        }

    def _codebook_size(self) -> int:
        """How many codes there are; raises ConfigError where the codec's grid is not that of the tower's tokens."""
        if self.codec is None:
            return self.config.codebook_size
        if not isinstance(self.codec, ImageTokenizer) or self.codec.grid != self.grid:
            raise ConfigError(
                f"model.codec must be an image tokenizer with a code for each of the image tower's {self.grid} cells; "
                f"got {type(self.codec).__name__} with a grid of {self.codec.grid}. Change its resolution or its "
                f"stride, or the tower's."
            )
        return self.codec.codebook_size


@torch.no_grad()
def _grid(tower: ImageTower, side: int) -> tuple[tuple[int, int], int]:
    """Rows and columns of a tower's tokens, and how many tokens stand before them (a CLS, or none)."""
    training = tower.training
    like = next(tower.parameters())
    count = tower.eval().tokens(torch.zeros(1, 3, side, side, device=like.device, dtype=like.dtype)).shape[1]
    tower.train(training)
    rows = math.isqrt(count)
    if count - rows * rows not in (0, 1) or rows == 0:
        raise ConfigError(
            f"model.image must be a tower whose tokens are a square grid, after a CLS token or none; got {count} "
            f"tokens. Use vision_transformer or convnet at a square resolution."
        )
    return (rows, rows), count - rows * rows
