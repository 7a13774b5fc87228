"""How pictures are noised, what a denoiser is asked for, and how one such answer is turned into another.

At time t a picture x0 with noise e is x_t = alpha x0 + sigma e. Time is counted in the unit that a denoiser reads: from
0 (clean) to `steps` (noise). Whatever the denoiser is asked for is p x0 + q e with numbers p and q of the time, so that
x0 and e follow from x_t and the answer as the solution of two linear equations.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from diptych.core.config import Config
from diptych.core.errors import ConfigError

Target = Literal["epsilon", "x0", "v", "flow"]


class NoiseScheduleConfig(Config):
    """Settings of the noise.

    course       "flow": alpha = 1 - s, sigma = s with s = t / steps, any real time (rectified flow: Liu et al. 2022,
                 arXiv:2209.03003; Esser et al. 2024, arXiv:2403.03206). The others are variance preserving, with whole
                 times 0..steps-1: alpha^2 = prod(1 - beta), sigma^2 = 1 - alpha^2, and betas that are "linear" (Ho et
                 al. 2020, arXiv:2006.11239), "scaled_linear", whose roots are so (latent diffusion, whose code calls
                 it linear), or "cosine" (Nichol and Dhariwal 2021, arXiv:2102.09672, eq. 17)
    beta_start, beta_end  of the first two: 1e-4 and 0.02 in DDPM and DiT, 0.00085 and 0.012 in Stable Diffusion
    target       what the denoiser foresees: the noise ("epsilon"), the picture ("x0"), alpha e - sigma x0 ("v":
                 Salimans and Ho 2022, arXiv:2202.00512), or e - x0 ("flow", the velocity of rectified flow)
    drawn        times for training: "uniform", or "logit_normal": steps times the logistic of a normal number
    shift        moves the times of sampling towards noise, s <- shift s / (1 + (shift - 1) s): larger pictures want
                 more than 1 (SD3: 3); of a flow
    spacing      which of the whole times sampling visits: "trailing" begins at the noisiest, "leading" leaves it out
                 (Lin et al. 2023, arXiv:2305.08891)
    min_snr      most that a time's signal-to-noise ratio counts for in the loss of x0 (Hang et al. 2023,
                 arXiv:2303.09556: 5); 0: every time's loss counts alike
    """

    course: Literal["flow", "linear", "scaled_linear", "cosine"] = "flow"
    steps: int = Field(default=1000, gt=1)
    beta_start: float = Field(default=1e-4, gt=0, lt=1)
    beta_end: float = Field(default=0.02, gt=0, lt=1)
    target: Target = "flow"
    drawn: Literal["uniform", "logit_normal"] = "logit_normal"
    logit_mean: float = 0.0
    logit_std: float = Field(default=1.0, gt=0)
    shift: float = Field(default=1.0, gt=0)
    spacing: Literal["trailing", "leading"] = "trailing"
    min_snr: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> "NoiseScheduleConfig":
        if self.shift != 1 and self.course != "flow":
            raise ValueError(
                f"NoiseScheduleConfig.shift must be 1 where times are whole numbers; got {self.shift} with course="
                f"{self.course}. Set course=flow, or leave shift out."
            )
        if self.target == "epsilon" and self.course == "flow":
            raise ValueError(
                "NoiseScheduleConfig.target must be flow, v or x0 with course=flow, which ends in nothing but noise: "
                "there the noise says nothing of the picture; got epsilon. Set target=flow."
            )
        return self

    def build(self) -> "NoiseSchedule":
        """The schedule."""
        return NoiseSchedule(self)


class NoiseSchedule(nn.Module):
    """A module only so that its table moves with the model; it has no weights and is no part of a checkpoint."""

    def __init__(self, config: NoiseScheduleConfig) -> None:
        super().__init__()
        self.config = config
        kept = torch.ones(1) if config.course == "flow" else _signal(config)  # of the flow nothing is read
        self.register_buffer("signal", kept, persistent=False)

    signal: Tensor
    """alpha^2 of times -1 (clean), 0, ..., steps - 1."""

    @property
    def alphas_cumprod(self) -> Float[Tensor, " t"]:
        """alpha^2 of each whole time."""
        return self.signal[1:]

    def levels(self, times: Float[Tensor, " b"]) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
        """(alpha, sigma); time -1 of a schedule of betas is the clean picture."""
        if self.config.course == "flow":
            s = times / self.config.steps
            return 1 - s, s
        kept = self.signal[times.long() + 1]
        return kept.sqrt(), (1 - kept).sqrt()

    def times_at(self, quantiles: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The times of training below which this share of them lies; uniform numbers become draws."""
        c = self.config
        s = quantiles.clamp_min(2.0**-25)  # never quite clean, where a noise cannot be told
        if c.drawn == "logit_normal":
            s = (c.logit_mean + c.logit_std * torch.special.ndtri(s)).sigmoid()
        return c.steps * s if c.course == "flow" else (c.steps * s).floor().clamp(max=c.steps - 1)

    def noised(
        self, x0: Float[Tensor, "b *s"], noise: Float[Tensor, "b *s"], times: Float[Tensor, " b"]
    ) -> Float[Tensor, "b *s"]:
        """alpha x0 + sigma e."""
        alpha, sigma = (_like(z, x0) for z in self.levels(times))
        return alpha * x0 + sigma * noise

    def target(
        self, x0: Float[Tensor, "b *s"], noise: Float[Tensor, "b *s"], times: Float[Tensor, " b"]
    ) -> Float[Tensor, "b *s"]:
        """What the denoiser is to foresee."""
        p, q = (_like(z, x0) for z in self._asked(times))
        return p * x0 + q * noise

    def split(
        self, x: Float[Tensor, "b *s"], answer: Float[Tensor, "b *s"], times: Float[Tensor, " b"]
    ) -> tuple[Float[Tensor, "b *s"], Float[Tensor, "b *s"]]:
        """(x0, noise) that a noised picture and the denoiser's answer amount to."""
        alpha, sigma = self.levels(times)
        p, q = self._asked(times)
        whole = alpha * q - sigma * p
        a, s, p, q, d = (_like(z, x) for z in (alpha, sigma, p, q, whole))
        return (q * x - s * answer) / d, (a * answer - p * x) / d

    def weights(self, times: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """What each time's squared error of the target counts for: min(SNR, min_snr) on the error of x0."""
        alpha, sigma = self.levels(times)
        if not self.config.min_snr:
            return torch.ones_like(alpha)
        p, q = self._asked(times)
        snr = (alpha / sigma.clamp_min(1e-8)) ** 2
        return snr.clamp(max=self.config.min_snr) * (sigma / (alpha * q - sigma * p)) ** 2

    def descent(self, count: int) -> Float[Tensor, " n"]:
        """The times that sampling goes through in `count` steps, from noise to clean: one more than steps."""
        c = self.config
        if c.course == "flow":
            s = torch.linspace(1, 0, count + 1, dtype=torch.float64)
            return (c.steps * c.shift * s / (1 + (c.shift - 1) * s)).float()
        if count > c.steps:
            raise ConfigError(
                f"steps of sampling must be at most the schedule's {c.steps}; got {count}. Take fewer steps."
            )
        if c.spacing == "trailing":
            times = torch.arange(count, 0, -1, dtype=torch.float64).mul(c.steps / count).round() - 1
        else:
            times = (torch.arange(count) * (c.steps // count)).flip(0)
        return torch.cat([times.float(), torch.tensor([-1.0])])

    def _asked(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """p and q of the target p x0 + q e."""
        alpha, sigma = self.levels(times)
        zero, one = torch.zeros_like(alpha), torch.ones_like(alpha)
        return {"epsilon": (zero, one), "x0": (one, zero), "v": (-sigma, alpha), "flow": (-one, one)}[
            self.config.target
        ]


def _signal(c: NoiseScheduleConfig) -> Float[Tensor, " t"]:
    """prod(1 - beta), preceded by 1."""
    n = c.steps
    if c.course == "linear":
        betas = torch.linspace(c.beta_start, c.beta_end, n, dtype=torch.float64)
    elif c.course == "scaled_linear":
        betas = torch.linspace(c.beta_start**0.5, c.beta_end**0.5, n, dtype=torch.float64) ** 2
    else:
        places = torch.arange(n + 1, dtype=torch.float64) / n
        bar = torch.cos((places + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = (1 - bar[1:] / bar[:-1]).clamp(max=0.999)
    return torch.cat([torch.ones(1, dtype=torch.float64), (1 - betas).cumprod(0)]).float()


def _like(z: Tensor, x: Tensor) -> Tensor:
    """A number a row, to be multiplied with rows of any shape."""
    return z.view(-1, *[1] * (x.ndim - 1))
