"""VQ-VAE (van den Oord et al., 2017, arXiv:1711.00937) on VQGAN's convolutions (Esser et al., 2021, arXiv:2012.09841):
what Chameleon, Janus and diffusers' VQModel are, and a small one for small machines."""

import torch
from jaxtyping import Float, Int64, UInt8
from pydantic import Field, model_validator
from torch import Tensor, nn

from diptych.models.codecs.codec import Autoencoded, CodeBook, CodecConfig, Term
from diptych.nn.codec_blocks import ConvCodecConfig, ConvDecoder, ConvEncoder
from diptych.nn.quantizer import VectorQuantizer, VectorQuantizerConfig


class VQVAEConfig(CodecConfig):
    """Settings of a VQ-VAE; those of the codebook are of `quantizer`, its losses' weight (beta) among them.

    convs            the two convolutional stacks
    latent_channels  between stack and codebook, on both sides of which is a 1x1 convolution
    """

    convs: ConvCodecConfig = ConvCodecConfig()
    latent_channels: int = Field(default=256, gt=0)
    quantizer: VectorQuantizerConfig = VectorQuantizerConfig()

    @model_validator(mode="after")
    def _divides(self) -> "VQVAEConfig":
        check_side(type(self).__name__, self.image_format.resolution, self.convs)
        return self

    def build(self, vocab_size: int = 0) -> "VQVAE":
        return VQVAE(self, vocab_size)


class VQVAE(CodeBook):
    """Convolutions down, the nearest code at each place, convolutions up. Its latents are the vectors of codes."""

    config: VQVAEConfig

    def __init__(self, config: VQVAEConfig, vocab_size: int = 0) -> None:
        super().__init__(config, vocab_size)
        c = self.config
        side = c.image_format.resolution // c.convs.stride
        self.grid = (side, side)
        self.codebook_size, self.latent_channels = c.quantizer.codes, c.quantizer.width
        self.encoder = ConvEncoder(c.convs, c.latent_channels)
        self.to_codebook = nn.Conv2d(c.latent_channels, c.quantizer.width, 1)
        self.quantizer = VectorQuantizer(c.quantizer)
        self.from_codebook = nn.Conv2d(c.quantizer.width, c.latent_channels, 1)
        self.decoder = ConvDecoder(c.convs, c.latent_channels)

    def forward(
        self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"], keys: Int64[Tensor, " b"]
    ) -> Autoencoded:
        wanted = self.at_side(images)
        found = self.quantizer(self._vectors(wanted))
        return Autoencoded(
            self.decode(self._map(found.vectors)).float(), wanted, {"codebook": Term(found.loss)}, rated=False
        )

    def codes(self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"]) -> Int64[Tensor, "b n"]:
        with torch.no_grad():
            return self.quantizer.nearest(self.quantizer.scaled(self._vectors(self.at_side(images)).float()))

    def latents_of(self, codes: Int64[Tensor, "b n"]) -> Float[Tensor, "b c r k"]:
        return self._map(self.quantizer.vectors(codes))

    def encode(self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c r k"]:
        return self.latents_of(self.codes(images))

    def decode(self, latents: Float[Tensor, "b c r k"]) -> Float[Tensor, "b 3 s s"]:
        return (self.decoder(self.from_codebook(latents)) + 1) / 2

    def decay_free(self) -> set[str]:
        return {"quantizer.codebook"} if isinstance(self.quantizer.codebook, nn.Parameter) else set()

    def after_step(self) -> None:
        self.quantizer.after_step()

    def health(self) -> dict[str, float]:
        return self.quantizer.seen.health()

    def _vectors(self, pixels: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b n d"]:
        """What the codebook is asked for."""
        return self.to_codebook(self.encoder(2 * pixels - 1)).flatten(2).transpose(1, 2)

    def _map(self, vectors: Float[Tensor, "b n d"]) -> Float[Tensor, "b d r k"]:
        return vectors.transpose(1, 2).unflatten(2, self.grid)


def check_side(who: str, side: int, convs: ConvCodecConfig) -> None:
    """Raise a ValueError where images of `side` are no whole number of places."""
    if side % convs.stride:
        raise ValueError(
            f"{who}.image_format.resolution must be a multiple of {convs.stride}, the stride of its convolutions; got "
            f"{side}. Take another side, or fewer multipliers."
        )
