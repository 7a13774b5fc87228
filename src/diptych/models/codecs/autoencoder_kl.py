"""The KL autoencoder of latent diffusion (Rombach et al., 2022, arXiv:2112.10752, section 3.1 and appendix G): a few
channels a place, held near a standard normal by a slight KL divergence."""

import torch
from jaxtyping import Float, Int64, UInt8
from pydantic import Field, model_validator
from torch import Tensor, nn

from diptych.core.distributed import all_sum
from diptych.models.codecs.codec import Autoencoded, CodecConfig, ImageDecoder, Term
from diptych.models.codecs.vqvae import check_side
from diptych.nn.codec_blocks import ConvCodecConfig, ConvDecoder, ConvEncoder
from diptych.nn.draws import normal

LOGVAR = (-30.0, 20.0)
"""Where logarithms of variances are held."""
MEMORY = 0.99
"""Of the moving average of the latents' mean square and mean, from which `scale` is."""


class AutoencoderKLConfig(CodecConfig):
    """Settings of a KL autoencoder.

    convs            the two convolutional stacks; latent diffusion's have multipliers (1, 2, 4, 4)
    latent_channels  of each place
    kl_weight        of the divergence a place and channel: the 1e-6 of latent diffusion is of its sum over them, beside
                     errors that are summed over pixels; here both are means, so the same balance is
                     1e-6 (latent numbers / pixels' numbers)
    sample           whether training decodes a drawn latent; False: its mean
    scaling_factor   `encode` multiplies by it and `decode` divides, so that latents have unit spread for what is
                     trained on them; 0: measured while training, 1 / standard deviation. Stable Diffusion: 0.18215
    """

    convs: ConvCodecConfig = ConvCodecConfig(multipliers=(1, 2, 4, 4))
    latent_channels: int = Field(default=4, gt=0)
    kl_weight: float = Field(default=1e-6, ge=0)
    sample: bool = True
    scaling_factor: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _divides(self) -> "AutoencoderKLConfig":
        check_side(type(self).__name__, self.image_format.resolution, self.convs)
        return self

    def build(self, vocab_size: int = 0) -> "AutoencoderKL":
        return AutoencoderKL(self, vocab_size)


class AutoencoderKL(ImageDecoder):
    """Convolutions down to mean and log-variance of each place, convolutions up. Latents are means times `scale`."""

    config: AutoencoderKLConfig
    moments: Tensor

    def __init__(self, config: AutoencoderKLConfig, vocab_size: int = 0) -> None:
        super().__init__(config, vocab_size)
        c = self.config
        side = c.image_format.resolution // c.convs.stride
        self.grid, self.latent_channels = (side, side), c.latent_channels
        self.encoder = ConvEncoder(c.convs, 2 * c.latent_channels)
        self.to_moments = nn.Conv2d(2 * c.latent_channels, 2 * c.latent_channels, 1)
        self.from_latents = nn.Conv2d(c.latent_channels, c.latent_channels, 1)
        self.decoder = ConvDecoder(c.convs, c.latent_channels)
        self.register_buffer("moments", torch.tensor([0.0, 0.0, 0.0]))  # weight so far, mean and mean square times it
        self._noted: Tensor | None = None

    def forward(
        self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"], keys: Int64[Tensor, " b"]
    ) -> Autoencoded:
        wanted = self.at_side(images)
        mean, logvar = self.distribution(wanted)
        if self.training:
            self._note(mean.detach())
        latents = mean
        if self.training and self.config.sample:
            noise = normal(keys, "latents", mean[0].numel()).view_as(mean)
            latents = mean + (logvar / 2).exp() * noise
        kl = ((mean.square() + logvar.exp() - 1 - logvar) / 2).mean((1, 2, 3))
        return Autoencoded(self._pixels(latents).float(), wanted, {"kl": Term(kl, self.config.kl_weight)})

    def distribution(
        self, pixels: Float[Tensor, "b 3 s s"]
    ) -> tuple[Float[Tensor, "b c r k"], Float[Tensor, "b c r k"]]:
        """Mean and logarithm of the variance of each latent number, before `scale`; `pixels` in 0..1."""
        mean, logvar = self.to_moments(self.encoder(2 * pixels - 1)).float().chunk(2, 1)
        return mean, logvar.clamp(*LOGVAR)

    @property
    def scale(self) -> Float[Tensor, ""]:
        """What latents are multiplied by: given, or 1 / their standard deviation as training has measured it (1 before
        there was any)."""
        if self.config.scaling_factor:
            return torch.full_like(self.moments[0], self.config.scaling_factor)
        weight, first, second = self.moments
        variance = second / weight - (first / weight).square()
        return torch.where(weight > 0, variance.clamp_min(1e-12).rsqrt(), 1.0)

    def encode(self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c r k"]:
        return self.scale * self.distribution(self.at_side(images))[0]

    def decode(self, latents: Float[Tensor, "b c r k"]) -> Float[Tensor, "b 3 s s"]:
        return self._pixels(latents / self.scale)

    @torch.no_grad()
    def after_step(self) -> None:
        if self._noted is None:
            return
        count, first, second = all_sum(self._noted)
        self._noted = None
        found = torch.stack([torch.ones_like(count), first / count, second / count])
        self.moments.copy_(torch.where(found.isfinite().all(), self.moments.lerp(found, 1 - MEMORY), self.moments))

    def health(self) -> dict[str, float]:
        return {"latent_scale": float(self.scale)}

    def _note(self, mean: Tensor) -> None:
        """Sums over what the step has seen; the variances that sampling adds are left out, as `encode` does."""
        found = torch.stack([mean.new_tensor(float(mean.numel())), mean.sum(), mean.square().sum()])
        self._noted = found if self._noted is None else self._noted + found

    def _pixels(self, latents: Float[Tensor, "b c r k"]) -> Float[Tensor, "b 3 s s"]:
        return (self.decoder(self.from_latents(latents)) + 1) / 2
