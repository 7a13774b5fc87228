"""Latent diffusion (Rombach et al., 2022, arXiv:2112.10752): a denoiser of a codec's latents that reads a text.

Without a codec it denoises pixels. What it knows of a pair it says by how much the text helps it to denoise the image
(Li et al., 2023, arXiv:2303.16203): a `score` under the same times and the same noise for every text, so that what
differs between two texts is the texts.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from pydantic import Field, model_validator
from torch import Tensor, nn

from diptych.core.batch import Batch
from diptych.core.distributed import all_sum
from diptych.core.errors import ConfigError, DataError
from diptych.core.seeds import fold
from diptych.models.codecs.codec import CodecConfig, ImageDecoder, as_pixels
from diptych.models.model import Model, ModelConfig
from diptych.models.painting import Painting
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.tower import TextTowerConfig
from diptych.nn.denoiser import Condition, DenoiserConfig
from diptych.nn.diffusion_transformer import DiffusionTransformerConfig
from diptych.nn.draws import happens, normal, uniform
from diptych.nn.noise_schedule import NoiseScheduleConfig
from diptych.nn.samplers import SamplerConfig, check_sampler, sample

PAIRS_AT_ONCE = 256
"""Pairs of an image and a text that are denoised at once for `score`."""


class LatentDiffusionConfig(ModelConfig):
    """Settings of latent diffusion. The format's mean and std mean nothing here: pixels go to -1..1.

    codec              whose latents are denoised; None: pixels are
    text, embed_dim    the tower whose tokens are attended to, and the width of its pooled vector
    pooled             whether that vector goes with the time as well (SD3); else only tokens are read
    condition_dropout  share of the samples of training that see the learned null condition (Ho and Salimans 2022)
    latent_scale       factor on the codec's latents, so that their spread is about 1 (Stable Diffusion: 0.18215); 0:
                       one over the spread of the second batch of training (the first may be taken several times,
                       to see what memory it needs), kept with the weights
    guidance           how much further than without the text painting goes, where it is not said
    score_draws        pairs of a time and a noise over which `score` takes the mean, the times spread evenly
    feature_noise      place in the schedule, 0 to 1, at which hidden states stand for an image
    """

    codec: CodecConfig | None = None
    text: TextTowerConfig = TextTransformerConfig()
    embed_dim: int = Field(default=512, gt=0)
    denoiser: DenoiserConfig = DiffusionTransformerConfig()
    schedule: NoiseScheduleConfig = NoiseScheduleConfig()
    sampler: SamplerConfig = SamplerConfig()
    pooled: bool = True
    condition_dropout: float = Field(default=0.1, ge=0, lt=1)
    latent_scale: float = Field(default=0.0, ge=0)
    guidance: float = Field(default=4.0, ge=0)
    score_draws: int = Field(default=8, gt=0)
    feature_noise: float = Field(default=0.1, ge=0, le=1)

    @model_validator(mode="after")
    def _fits(self) -> "LatentDiffusionConfig":
        side = self.image_format.resolution
        if self.codec is not None and self.codec.image_format.resolution != side:
            raise ValueError(
                f"LatentDiffusionConfig.image_format.resolution must be the codec's "
                f"({self.codec.image_format.resolution}); got {side}. Set model.image_format.resolution."
            )
        return self

    def build(self, vocab_size: int) -> "LatentDiffusion":
        check_sampler(self.schedule.build(), self.sampler)
        return LatentDiffusion(self, vocab_size)


class LatentDiffusion(Model):
    """Paints texts, and scores images against them. `forward` are the errors that training makes small.

    First weights of the null condition: N(0, 0.02^2), one token and one vector. The codec is frozen here already; a
    recipe freezes it as well, so that it also rests.
    """

    config: LatentDiffusionConfig

    def __init__(self, config: LatentDiffusionConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        c = config
        codec = None if c.codec is None else c.codec.build()
        if codec is not None and not isinstance(codec, ImageDecoder):
            raise ConfigError(
                f"codec must be one whose latents become pixels again; got {type(codec).__name__}. Choose another."
            )
        self.codec = None if codec is None else codec.requires_grad_(False)
        channels, side = 3, self.side()
        if self.codec is not None:
            channels, side = self.codec.latent_channels, self.codec.grid[0]
        self.text_tower = c.text.build(vocab_size, c.context_length, c.embed_dim)
        if not c.pooled:
            _freeze_readout(self.text_tower)
        self.schedule = c.schedule.build()
        self.denoiser = c.denoiser.build(channels, side, *self.told_widths())
        self.null_token = nn.Parameter(torch.randn(self.text_tower.width) * 0.02)
        self.null_vector = nn.Parameter(torch.randn(c.embed_dim) * 0.02) if c.pooled else None
        given = 1.0 if self.codec is None else c.latent_scale
        self.register_buffer("latent_scale", torch.tensor(given or 1.0))
        self.register_buffer("scale_is_known", torch.tensor(given > 0))
        self._measures, self._steps, self._spread = not given, 0, torch.zeros(3, dtype=torch.float64)
        self.register_load_state_dict_post_hook(lambda module, _: module._hear_of_scale())

    latent_scale: Tensor
    scale_is_known: Tensor

    def side(self) -> int:
        """Of the pixels that are painted, where there is no codec."""
        return self.config.image_format.resolution

    def told_widths(self) -> tuple[int, int]:
        """Widths of the tokens and of the vector that the denoiser is told."""
        return self.text_tower.width, self.config.embed_dim if self.config.pooled else 0

    def decay_free(self) -> set[str]:
        """Those of the parts; the null condition has one dimension."""
        found = {f"text_tower.{n}" for n in self.text_tower.decay_free()}
        return found | {f"denoiser.{n}" for n in self.denoiser.decay_free()}

    def latents(self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c r k"]:
        """What is denoised, in float32, without gradient: scaled latents, or pixels in -1..1."""
        if self.codec is None:
            x = images.float()
            if self.side() != self.config.image_format.resolution:
                size = (self.side(), self.side())
                x = F.interpolate(x, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 255)
            return x / 127.5 - 1
        with torch.no_grad():
            found = self.codec.encode(images).float()
        if self._measures and self._steps and self.training and torch.is_grad_enabled():
            x = found.double()
            self._spread = self._spread.to(x.device) + torch.stack([torch.ones_like(x), x, x**2]).flatten(1).sum(1)
        return found * self.latent_scale

    def pixels(self, latents: Float[Tensor, "b c r k"]) -> UInt8[Tensor, "b 3 h w"]:
        """The way back."""
        if self.codec is None:
            return as_pixels((latents + 1) / 2)
        return self.codec.pixels(latents / self.latent_scale)

    def condition(
        self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"], dropped: Bool[Tensor, " b"] | None = None
    ) -> Condition:
        """What the denoiser is told of texts; where `dropped`, the learned nothing."""
        words = self.text_tower.tokens(tokens, lengths)
        vector = self.text_tower(tokens, lengths) if self.null_vector is not None else None
        lengths = lengths.to(words.device, non_blocking=True)
        if dropped is None:
            return Condition(words, lengths, vector)
        null = F.pad(self.null_token.to(words.dtype)[None], (0, 0, 0, words.shape[1] - 1))  # (t, d)
        words = torch.where(dropped[:, None, None], null, words)
        if vector is not None and self.null_vector is not None:
            vector = torch.where(dropped[:, None], self.null_vector.to(vector.dtype), vector)
        return Condition(words, torch.where(dropped, 1, lengths), vector)

    def asked(self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"], keys: Int64[Tensor, " b"]) -> Condition:
        """What painting and scoring tell of texts; what is drawn for that, if anything, is a function of `keys`."""
        return self.condition(tokens, lengths)

    def told(self, batch: Batch, keys: Int64[Tensor, " b"]) -> Condition:
        """What training tells of pairs, some of it dropped by their keys."""
        assert batch.tokens is not None
        assert batch.lengths is not None
        dropped = happens(keys, "condition dropped", self.config.condition_dropout)
        return self.condition(batch.tokens, batch.lengths, dropped)

    def nothing(self, count: int) -> Condition:
        """The learned null condition, so many times."""
        lengths = torch.ones(count, dtype=torch.int64, device=self.null_token.device)
        vector = None if self.null_vector is None else self.null_vector.expand(count, -1)
        return Condition(self.null_token.expand(count, 1, -1), lengths, vector)

    def errors(
        self,
        latents: Float[Tensor, "b c r k"],
        noise: Float[Tensor, "b c r k"],
        times: Float[Tensor, " b"],
        condition: Condition,
    ) -> Float[Tensor, " b"]:
        """Mean squared error of the answer to each noised row, in float32."""
        answer = self.denoiser(self.schedule.noised(latents, noise, times), times, condition).float()
        return (answer - self.schedule.target(latents, noise, times)).square().flatten(1).mean(1)

    def forward(self, batch: Batch, keys: Int64[Tensor, " b"]) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
        """(error of each sample, what it counts for); time, noise and dropping are functions of its key."""
        if batch.images is None or batch.tokens is None or batch.lengths is None or batch.image_position is not None:
            raise DataError("a batch must hold one image and one text a record for latent diffusion; got others.")
        x0 = self.latents(batch.images)
        times = self.schedule.times_at(uniform(keys, "time of noise", 1)[:, 0])
        noise = normal(keys, "noise", x0[0].numel()).view_as(x0)
        return self.errors(x0, noise, times, self.told(batch, keys)), self.schedule.weights(times)

    @torch.no_grad()
    def generate_image(
        self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"], how: Painting
    ) -> UInt8[Tensor, "b 3 h w"]:
        """A picture of each text."""
        return self.paint(self.asked(tokens, lengths, how.keys(len(tokens), tokens.device)), how)

    def paint(self, told: Condition, how: Painting) -> UInt8[Tensor, "b 3 h w"]:
        """A picture of each condition: its answer plus (guidance - 1) times what it has beyond that to nothing."""
        c = self.config
        guidance = c.guidance if how.guidance is None else how.guidance
        plan = c.sampler.replace(name=how.sampler or c.sampler.name, steps=how.steps or c.sampler.steps)
        assert told.tokens is not None
        count, device = len(told.tokens), told.tokens.device

        def predict(x: Tensor, times: Tensor) -> Tensor:
            answer = self.denoiser(x, times, told).float()
            if guidance == 1:
                return answer
            blind = self.denoiser(x, times, self.nothing(count)).float()
            return blind + guidance * (answer - blind)

        keys = how.keys(count, device)
        return self.pixels(sample(predict, self.schedule, keys, self._shape(), plan))

    @torch.no_grad()
    def score(
        self, images: UInt8[Tensor, "i 3 h w"], tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]
    ) -> Float[Tensor, "i b"]:
        """Minus the error of denoising each image told each text, over the same times and noise for all."""
        keys = Painting().keys(1, tokens.device).expand(len(tokens))  # a text's draws are the same in any place
        x0, told = self.latents(images), self.asked(tokens, lengths, keys)
        rows = max(1, PAIRS_AT_ONCE // max(len(tokens), 1))
        return torch.cat([self._score(x0[i : i + rows], told) for i in range(0, len(x0), rows)])

    @torch.no_grad()
    def image_prior(self, images: UInt8[Tensor, "i 3 h w"]) -> Float[Tensor, " i"]:
        """The same told nothing."""
        return self._score(self.latents(images), self.nothing(1))[:, 0]

    @torch.no_grad()
    def image_features(self, images: UInt8[Tensor, "i 3 h w"]) -> Float[Tensor, "i p d"]:
        """Hidden states of the denoiser's middle, told nothing, at a little noise, the same for all images."""
        x0 = self.latents(images)
        time = self.schedule.descent(1)[:1].to(x0.device) * self.config.feature_noise
        times = (time if self.config.schedule.course == "flow" else time.floor()).expand(len(x0))
        x = self.schedule.noised(x0, self._noise("features", x0), times)
        return self.denoiser.tokens(x, times, self.nothing(len(x0)))

    def after_step(self) -> None:
        """After the second step of training: the factor on latents, from the spread of that step's whole batch."""
        if not self._measures:
            return
        if self._steps == 0:
            self._steps = 1
            return
        count, total, squares = all_sum(self._spread).unbind()
        if count > 0:
            self.latent_scale.copy_((squares / count - (total / count) ** 2).clamp_min(1e-12).rsqrt())
            self.scale_is_known.fill_(True)
            self._measures = False

    def _hear_of_scale(self) -> None:
        """Whether the weights that were just loaded know their factor."""
        if not self.scale_is_known.is_meta:
            self._measures = not bool(self.scale_is_known)

    def _score(self, x0: Tensor, told: Condition) -> Tensor:
        """Minus the mean error of each image told each condition."""
        assert told.tokens is not None
        draws, images, texts = self.config.score_draws, len(x0), len(told.tokens)
        of_image = torch.arange(images, device=x0.device).repeat_interleave(texts)
        of_text = torch.arange(texts, device=x0.device).repeat(images)
        total = torch.zeros(images, texts, device=x0.device)
        pairs = told.take(of_text)
        for draw in range(draws):
            quantile = torch.full((len(of_image),), (draw + 0.5) / draws, device=x0.device)
            noise = self._noise(f"draw {draw}", x0)[of_image]
            total -= self.errors(x0[of_image], noise, self.schedule.times_at(quantile), pairs).view(images, texts)
        return total / draws

    def _noise(self, name: str, like: Tensor) -> Tensor:
        """One noise for all rows: a function of its name alone."""
        key = torch.tensor([fold("noise of latent diffusion")], dtype=torch.int64, device=like.device)
        return normal(key, name, like[0].numel()).view(1, *like.shape[1:]).expand_as(like)

    def _shape(self) -> tuple[int, int, int]:
        if self.codec is None:
            return 3, self.side(), self.side()
        return self.codec.latent_channels, *self.codec.grid


def _freeze_readout(tower: Any) -> None:
    """What only the pooled vector reads gets no gradient."""
    for name in ("pooler", "projection"):
        part = getattr(tower, name, None)
        if isinstance(part, nn.Module):
            part.requires_grad_(False)
