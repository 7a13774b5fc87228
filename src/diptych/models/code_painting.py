"""Images as rows of codes: what models share that read and draw the codes of an image codec (DALL-E, Chameleon)."""

from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from diptych.core.errors import ConfigError
from diptych.models.codecs.codec import CodeBook, CodecConfig, ImageTokenizer
from diptych.models.generate import nucleus
from diptych.models.model import Model
from diptych.models.painting import Painting

Self = TypeVar("Self", bound="PaintsCodes")


class PaintsCodes(Model):
    """A model whose images are codes of a frozen `codec`. No loss of its own reaches the codec, which always rests: its
    codes must mean tomorrow what they mean today."""

    codec: Any
    """An ImageTokenizer, or a CodeBook where there is to be painted."""

    def take_codec(self, config: CodecConfig) -> tuple[int, int, int]:
        """Build the codec, frozen; (codes in its book, rows, columns). Raises ConfigError where it has no codes."""
        codec = config.build()
        if not isinstance(codec, ImageTokenizer):
            raise ConfigError(
                f"{type(self.config).__name__}.codec must be a codec with a codebook; got "
                f"{type(codec).__name__.removesuffix('Config')}. Take models.codecs.vqvae or dvae."
            )
        self.codec = codec.requires_grad_(False).eval()
        return codec.codebook_size, *codec.grid

    def train(self: Self, mode: bool = True) -> Self:
        """Training mode, or not, for all but the codec."""
        super().train(mode)
        self.codec.eval()
        return self

    def codes(self, images: UInt8[Tensor, "i 3 h w"] | Float[Tensor, "i 3 h w"]) -> Int64[Tensor, "i n"]:
        """The codes of images, row by row, in float32 whatever the autocast around: near a tie it would choose
        otherwise."""
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            found: Tensor = self.codec.codes(images)
            return found

    @torch.no_grad()
    def paint_codes(self, codes: Int64[Tensor, "b n"]) -> UInt8[Tensor, "b 3 s s"]:
        """The images that codes stand for. Raises ConfigError where the codec only reads."""
        if not isinstance(self.codec, CodeBook):
            raise ConfigError(
                f"painting must be asked of a model whose codec makes pixels of codes; got "
                f"{type(self.codec).__name__}, which only reads. Give it one with a decoder: parts.codec=FOLDER#."
            )
        return self.codec.paint(codes)


def draw_codes(logits: Float[Tensor, "b k"], chance: Float[Tensor, " b"], how: Painting) -> Int64[Tensor, " b"]:
    """A code a row: that in whose share of the probability `chance` (0..1) falls, after temperature, top-k and top-p.

    Each row is decided by its own number, whatever is beside it.
    """
    logits = logits.float() / how.temperature
    if 0 < how.top_k < logits.shape[1]:
        least = logits.topk(how.top_k, dim=1).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    shares = nucleus(logits, how.top_p) if how.top_p < 1 else logits.softmax(1)
    upto = shares.double().cumsum(1)  # in float32 the last of 8,192 codes would gain or lose by rounding
    found = torch.searchsorted(upto, chance.double()[:, None] * upto[:, -1:], right=True)[:, 0]
    return found.clamp(max=logits.shape[1] - 1)


def guided(logits: Float[Tensor, "b k"], blind: Float[Tensor, "b k"], guidance: float) -> Float[Tensor, "b k"]:
    """Logits moved away from those without the text: blind + guidance (logits - blind) (Ho and Salimans, 2022,
    arXiv:2207.12598, eq. 6, of log-probabilities instead of scores)."""
    return blind + guidance * (logits - blind)
