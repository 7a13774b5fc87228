"""DALL-E's discrete VAE (Ramesh et al., 2021, arXiv:2102.12092, section 2.1 and appendix A): a distribution over codes
at each place, relaxed while it learns (Gumbel-softmax, Jang et al., 2017, arXiv:1611.01144).

FLAVA's image codebook is its encoder. What the paper sums over an image is divided here, as there, by its numbers of
pixels (3 s s): the likelihood in nats a number, and the KL divergence beside it.
"""

import math
from itertools import pairwise
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from pydantic import Field, model_validator
from torch import Tensor, nn

from diptych.models.codecs.codec import Autoencoded, CodeBook, CodecConfig, Term
from diptych.nn.draws import uniform
from diptych.nn.quantizer import CodeUse

MARGIN = 0.1
"""Pixels are held within it of both ends, where a logit would be infinite (`map_pixels`; appendix A.3)."""
NARROWEST = -4.4
"""Least logarithm of a width of the likelihood: a grey level is 0.8 / 255 / (x (1 - x)) >= exp(-4.38) wide in logits,
and flat colours would else be foreseen ever more sharply without end."""


class DiscreteVAEConfig(CodecConfig):
    """Settings of a discrete VAE. The paper's: 8192 codes, width 256, four groups of two blocks, at 256 pixels.

    width             channels at the first group; those of each group are `multipliers` of it; between two groups the
                      encoder takes the maximum of 2 x 2 places, the decoder repeats each
    depth             blocks of a group
    decoder_width     channels of a code's vector
    patch             side of the squares of pixels that are the first group's places: 1 in the paper
    likelihood        "logit_laplace" (equation 6 of the paper); "none": the objective rates pixels
    kl_weight         of the divergence from the uniform distribution, which `kl_steps` ramp up from 0
    temperature, final_temperature, temperature_steps  of the relaxation, by a cosine from the one to the other
    """

    codes: int = Field(default=8192, gt=1)
    width: int = Field(default=256, gt=0)
    multipliers: tuple[int, ...] = (1, 2, 4, 8)
    depth: int = Field(default=2, gt=0)
    decoder_width: int = Field(default=128, gt=0)
    patch: int = Field(default=1, gt=0)
    likelihood: Literal["logit_laplace", "none"] = "logit_laplace"
    kl_weight: float = Field(default=6.6, ge=0)
    kl_steps: int = Field(default=5000, ge=0)
    temperature: float = Field(default=1.0, gt=0)
    final_temperature: float = Field(default=1 / 16, gt=0)
    temperature_steps: int = Field(default=150_000, ge=0)

    @model_validator(mode="after")
    def _divides(self) -> "DiscreteVAEConfig":
        stride = self.patch * 2 ** (len(self.multipliers) - 1)
        if not self.multipliers or min(self.multipliers) < 1 or self.image_format.resolution % stride or self.width % 4:
            raise ValueError(
                f"DiscreteVAEConfig.image_format.resolution must be a multiple of {stride}, the stride of the groups, "
                f"and width of 4; got {self.image_format.resolution}, {self.width} and multipliers {self.multipliers}. "
                "The paper has 256, 256 and (1, 2, 4, 8)."
            )
        return self

    def build(self, vocab_size: int = 0) -> "DiscreteVAE":
        return DiscreteVAE(self, vocab_size)


class Bottleneck(nn.Module):
    """identity(x) + gain * four convolutions, each behind a ReLU, of a quarter of the width inside."""

    recomputable: ClassVar[bool] = True
    """See nn/checkpointing.py."""

    def __init__(self, width_in: int, width: int, kernels: tuple[int, int, int, int], gain: float) -> None:
        super().__init__()
        inner, self.gain = width // 4, gain
        self.shortcut = _conv(width_in, width, 1) if width_in != width else None
        widths = pairwise((width_in, inner, inner, inner, width))
        self.convs = nn.ModuleList(_conv(a, b, k) for (a, b), k in zip(widths, kernels, strict=True))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        y = x
        for conv in self.convs:
            y = conv(F.relu(y))
        return (x if self.shortcut is None else self.shortcut(x)) + self.gain * y


class Groups(nn.Module):
    """All blocks of an encoder or a decoder, between two groups a change of side by `resize`."""

    def __init__(self, widths: tuple[int, ...], first: int, depth: int, kernels: tuple[int, int, int, int]) -> None:
        super().__init__()
        gain = 1 / (len(widths) * depth) ** 2
        entering = (first, *widths[:-1])
        self.groups = nn.ModuleList(
            nn.Sequential(*(Bottleneck(a if i == 0 else b, b, kernels, gain) for i in range(depth)))
            for a, b in zip(entering, widths, strict=True)
        )
        self.down = kernels[0] == 3

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        for i, group in enumerate(self.groups):
            if i > 0:
                x = F.max_pool2d(x, 2) if self.down else F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = group(x)
        return x


class DiscreteVAE(CodeBook):
    """Logits of codes at each place; a mixture of codes' vectors while it learns, the likeliest's vector otherwise."""

    config: DiscreteVAEConfig
    steps: Tensor

    def __init__(self, config: DiscreteVAEConfig, vocab_size: int = 0) -> None:
        super().__init__(config, vocab_size)
        c = self.config
        side = c.image_format.resolution // (c.patch * 2 ** (len(c.multipliers) - 1))
        self.grid, self.codebook_size, self.latent_channels = (side, side), c.codes, c.decoder_width
        widths = tuple(c.width * m for m in c.multipliers)
        self.conv_in = _conv(3 * c.patch**2, widths[0], 7)
        self.encoder = Groups(widths, widths[0], c.depth, (3, 3, 3, 1))
        self.to_logits = _conv(widths[-1], c.codes, 1)
        self.from_codes = _conv(c.codes, c.decoder_width, 1)
        self.decoder = Groups(widths[::-1], c.decoder_width, c.depth, (1, 3, 3, 3))
        self.conv_out = _conv(widths[0], 6 * c.patch**2, 1)
        self.seen = CodeUse(c.codes)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(
        self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"], keys: Int64[Tensor, " b"]
    ) -> Autoencoded:
        wanted = self.at_side(images)
        logits = self.logits(wanted).float()
        with torch.autocast(logits.device.type, enabled=False):
            soft = self.relaxed(logits, keys) if self.training else _one_hot(logits)
            kl = self._divergence(logits)
        if self.training:
            self.seen.note(logits.detach().argmax(1))
        middle, log_width = self.statistics(self.from_codes(soft)).float().chunk(2, 1)
        terms = {"kl": Term(kl, self._kl_weight())}
        if self.config.likelihood == "logit_laplace":
            terms["nll"] = Term(logit_laplace(map_pixels(wanted), middle, log_width).mean((1, 2, 3)))
        return Autoencoded(unmap_pixels(middle), wanted, terms, rated=self.config.likelihood != "none")

    def logits(self, pixels: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b v r k"]:
        """Of each code at each place; `pixels` in 0..1."""
        x = F.pixel_unshuffle(map_pixels(pixels), self.config.patch)
        return self.to_logits(F.relu(self.encoder(self.conv_in(x))))

    def relaxed(self, logits: Float[Tensor, "b v r k"], keys: Int64[Tensor, " b"]) -> Float[Tensor, "b v r k"]:
        """softmax((logits + Gumbel noise) / temperature)."""
        draws = uniform(keys, "gumbel", logits[0].numel()).clamp_min(2.0**-25).view_as(logits)
        return ((logits - (-draws.log()).log()) / self.temperature()).softmax(1)

    def statistics(self, latents: Float[Tensor, "b c r k"]) -> Float[Tensor, "b 6 s s"]:
        """The middle of each number's distribution, in logits, and the logarithm of its width."""
        x = self.conv_out(F.relu(self.decoder(latents)))
        middle, log_width = (F.pixel_shuffle(half, self.config.patch) for half in x.chunk(2, 1))
        return torch.cat([middle, log_width], 1)

    @torch.no_grad()
    def codes(self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"]) -> Int64[Tensor, "b n"]:
        return self.logits(self.at_side(images)).argmax(1).flatten(1)

    def latents_of(self, codes: Int64[Tensor, "b n"]) -> Float[Tensor, "b c r k"]:
        table, bias = self.from_codes.weight[:, :, 0, 0].T, self.from_codes.bias
        assert bias is not None
        return (F.embedding(codes, table) + bias).transpose(1, 2).unflatten(2, self.grid)

    def encode(self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c r k"]:
        return self.latents_of(self.codes(images))

    def decode(self, latents: Float[Tensor, "b c r k"]) -> Float[Tensor, "b 3 s s"]:
        return unmap_pixels(self.statistics(latents).chunk(2, 1)[0])

    def temperature(self) -> Float[Tensor, ""]:
        """Of the relaxation now."""
        c = self.config
        fall = (1 + torch.cos(math.pi * self._share(c.temperature_steps))) / 2
        return c.final_temperature + (c.temperature - c.final_temperature) * fall

    def after_step(self) -> None:
        if self.seen.take() is not None:  # once a step
            self.steps += 1

    def health(self) -> dict[str, float]:
        return {
            **self.seen.health(),
            "gumbel_temperature": float(self.temperature()),
            "kl_weight": float(self._kl_weight()),
        }

    def _kl_weight(self) -> Tensor:
        return self.config.kl_weight * self._share(self.config.kl_steps)

    def _share(self, steps: int) -> Tensor:
        """How much of so many steps is over."""
        return (self.steps / steps).clamp_max(1).float() if steps else torch.ones((), device=self.steps.device)

    def _divergence(self, logits: Float[Tensor, "b v r k"]) -> Float[Tensor, " b"]:
        """KL(codes' distribution | uniform), summed over places, a number of the image."""
        log_share = logits.log_softmax(1)
        each = (log_share.exp() * log_share).sum(1) + math.log(self.config.codes)
        return each.sum((1, 2)) / (3 * self.config.image_format.resolution**2)


def map_pixels(x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """0..1 to 0.1..0.9."""
    return (1 - 2 * MARGIN) * x + MARGIN


def unmap_pixels(middle: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """The pixels, in 0..1, whose logits are `middle`."""
    return ((torch.sigmoid(middle) - MARGIN) / (1 - 2 * MARGIN)).clamp(0, 1)


def logit_laplace(
    x: Float[Tensor, "*s"], middle: Float[Tensor, "*s"], log_width: Float[Tensor, "*s"]
) -> Float[Tensor, "*s"]:
    """-log p(x), in nats, of a number in 0..1 whose logit is Laplace's (equation 6 of the paper)."""
    log_width = log_width.clamp_min(NARROWEST)
    return math.log(2) + log_width + (x * (1 - x)).log() + (torch.logit(x) - middle).abs() * (-log_width).exp()


def _one_hot(logits: Float[Tensor, "b v r k"]) -> Float[Tensor, "b v r k"]:
    return F.one_hot(logits.argmax(1), logits.shape[1]).movedim(3, 1).to(logits.dtype)


def _conv(width_in: int, width: int, kernel: int) -> nn.Conv2d:
    """First weights N(0, 1 / fan-in), biases 0, as the paper's code has them."""
    conv = nn.Conv2d(width_in, width, kernel, padding=kernel // 2)
    nn.init.normal_(conv.weight, std=(width_in * kernel**2) ** -0.5)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]  # there is one
    return conv
