"""The half of a VQGAN that reads: Chameleon's public tokenizer, which was published without its decoder."""

from jaxtyping import Float, Int64, UInt8
from pydantic import Field, model_validator
from torch import Tensor, nn

from diptych.models.codecs.codec import CodecConfig, ImageTokenizer
from diptych.models.codecs.vqvae import check_side
from diptych.nn.codec_blocks import ConvCodecConfig, ConvEncoder
from diptych.nn.quantizer import VectorQuantizer, VectorQuantizerConfig


class CodeReaderConfig(CodecConfig):
    """Settings of a VQ-VAE without its decoder; see VQVAEConfig."""

    convs: ConvCodecConfig = ConvCodecConfig()
    latent_channels: int = Field(default=256, gt=0)
    quantizer: VectorQuantizerConfig = VectorQuantizerConfig()

    @model_validator(mode="after")
    def _divides(self) -> "CodeReaderConfig":
        check_side(type(self).__name__, self.image_format.resolution, self.convs)
        return self

    def build(self, vocab_size: int = 0) -> "CodeReader":
        return CodeReader(self, vocab_size)


class CodeReader(ImageTokenizer):
    """Pixels to codes by the names and the numbers of a VQVAE; it paints nothing, and learns nothing by itself.

    `from_codebook` is what a decoder would begin with: it came with the weights, and goes with them.
    """

    config: CodeReaderConfig

    def __init__(self, config: CodeReaderConfig, vocab_size: int = 0) -> None:
        super().__init__(config, vocab_size)
        c = config
        side = c.image_format.resolution // c.convs.stride
        self.grid, self.codebook_size = (side, side), c.quantizer.codes
        self.encoder = ConvEncoder(c.convs, c.latent_channels)
        self.to_codebook = nn.Conv2d(c.latent_channels, c.quantizer.width, 1)
        self.quantizer = VectorQuantizer(c.quantizer)
        self.from_codebook = nn.Conv2d(c.quantizer.width, c.latent_channels, 1)

    def codes(self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"]) -> Int64[Tensor, "b n"]:
        vectors = self.to_codebook(self.encoder(2 * self.at_side(images) - 1)).flatten(2).transpose(1, 2)
        return self.quantizer.nearest(self.quantizer.scaled(vectors.float()))
