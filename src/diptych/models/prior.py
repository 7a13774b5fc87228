"""unCLIP's diffusion prior (Ramesh et al., 2022, arXiv:2204.06125, section 2.2): from a text to the vector of an image
that it could describe, in the space of a CLIP that rests."""

import torch
from jaxtyping import Float, Int64, UInt8
from pydantic import Field, model_validator
from torch import Tensor, nn

from diptych.core.batch import Batch
from diptych.core.errors import DataError
from diptych.models.model import Model, ModelConfig
from diptych.models.painting import Painting
from diptych.models.two_tower import TwoTower, TwoTowerConfig
from diptych.nn.block import BlockConfig
from diptych.nn.draws import happens, normal, uniform
from diptych.nn.noise_schedule import NoiseScheduleConfig
from diptych.nn.prior_transformer import PriorTransformer
from diptych.nn.samplers import SamplerConfig, check_sampler, sample


class PriorConfig(ModelConfig):
    """Settings of a prior.

    clip               whose vectors are foreseen and whose text tower is read; it rests
    transformer        the blocks
    schedule           the paper: cosine betas, and the vector itself is foreseen
    condition_dropout  share of the samples of training whose text, tokens and vector, is the learned nothing
    guidance           how much further than without the text sampling goes
    candidates         vectors that are drawn for a text, of which the nearest to the text's is kept
    """

    clip: TwoTowerConfig = TwoTowerConfig()
    transformer: BlockConfig = BlockConfig(width=512, depth=6, heads=8)
    schedule: NoiseScheduleConfig = NoiseScheduleConfig(course="cosine", target="x0", drawn="uniform")
    sampler: SamplerConfig = SamplerConfig(name="ddim", steps=25)
    condition_dropout: float = Field(default=0.1, ge=0, lt=1)
    guidance: float = Field(default=1.0, ge=0)
    candidates: int = Field(default=2, gt=0)

    @model_validator(mode="after")
    def _reads_as_clip_does(self) -> "PriorConfig":
        for name in ("image_format", "context_length"):
            if getattr(self, name) != getattr(self.clip, name):
                raise ValueError(
                    f"PriorConfig.{name} must be that of its clip; got {getattr(self, name)} and "
                    f"{getattr(self.clip, name)}. Set both alike."
                )
        return self

    def build(self, vocab_size: int) -> "Prior":
        check_sampler(self.schedule.build(), self.sampler)
        return Prior(self, vocab_size)


class Prior(Model):
    """What is handed out and told are CLIP's vectors, of unit length, times sqrt(e): numbers of about unit spread.

    `forward` are the errors that training makes small; `sample_vectors` what a decoder is given.
    """

    config: PriorConfig

    def __init__(self, config: PriorConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        c = config
        clip = c.clip.build(vocab_size)
        assert isinstance(clip, TwoTower)
        self.clip = clip.requires_grad_(False)
        width = self.clip.text_tower.width
        self.schedule = c.schedule.build()
        self.transformer = PriorTransformer(c.transformer, c.context_length, width, c.clip.embed_dim)
        self.null_token = nn.Parameter(torch.randn(width) * 0.02)
        self.null_vector = nn.Parameter(torch.randn(c.clip.embed_dim) * 0.02)

    def decay_free(self) -> set[str]:
        """Those of the parts."""
        found = {f"transformer.{n}" for n in self.transformer.decay_free()}
        return found | {f"clip.{n}" for n in self.clip.decay_free()}

    @torch.no_grad()
    def image_vectors(self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        """CLIP's vectors of images, times sqrt(e)."""
        return self.clip.encode_image(images) * self.config.clip.embed_dim**0.5

    @torch.no_grad()
    def read(
        self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]
    ) -> tuple[Float[Tensor, "b t c"], Int64[Tensor, " b"], Float[Tensor, "b e"]]:
        """CLIP's tokens of texts, their lengths on the device, and their vectors times sqrt(e)."""
        words = self.clip.text_tower.tokens(tokens, lengths)
        vectors = self.clip.encode_text(tokens, lengths) * self.config.clip.embed_dim**0.5
        return words, lengths.to(words.device), vectors

    def forward(self, batch: Batch, keys: Int64[Tensor, " b"]) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
        """(error of each sample, what it counts for); time, noise and dropping are functions of its key."""
        if batch.images is None or batch.tokens is None or batch.lengths is None or batch.image_position is not None:
            raise DataError("a batch must hold one image and one text a record for a prior; got others.")
        t = self.transformer
        x0 = (self.image_vectors(batch.images).float() / t.embed_dim**0.5 - t.mean) / t.std
        words, lengths, vectors = self.read(batch.tokens, batch.lengths)
        dropped = happens(keys, "condition dropped", self.config.condition_dropout)
        null = nn.functional.pad(self.null_token.to(words.dtype)[None], (0, 0, 0, words.shape[1] - 1))
        words = torch.where(dropped[:, None, None], null, words)
        vectors = torch.where(dropped[:, None], self.null_vector.to(vectors.dtype), vectors)
        lengths = torch.where(dropped, 1, lengths)
        times = self.schedule.times_at(uniform(keys, "time of noise", 1)[:, 0])
        noise = normal(keys, "noise", x0.shape[1])
        answer = t(self.schedule.noised(x0, noise, times), times, words, lengths, vectors).float()
        error = (answer - self.schedule.target(x0, noise, times)).square().mean(1)
        return error, self.schedule.weights(times)

    @torch.no_grad()
    def sample_vectors(
        self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"], keys: Int64[Tensor, " b"]
    ) -> Float[Tensor, "b e"]:
        """An image vector of each text (unit length times sqrt(e)): of several that are drawn, the one nearest to the
        text's. What is drawn is a function of `keys`."""
        c = self.config
        words, lengths, vectors = self.read(tokens, lengths)
        blind = (
            self.null_token.expand(len(words), 1, -1),
            torch.ones_like(lengths),
            self.null_vector.expand(len(words), -1),
        )

        def predict(x: Tensor, times: Tensor) -> Tensor:
            answer = self.transformer(x, times, words, lengths, vectors).float()
            if c.guidance == 1:
                return answer
            nothing = self.transformer(x, times, *blind).float()
            return nothing + c.guidance * (answer - nothing)

        side = c.clip.embed_dim**0.5
        drawn = torch.stack(
            [
                sample(predict, self.schedule, keys + i, (c.clip.embed_dim,), c.sampler)  # another key, other draws
                for i in range(c.candidates)
            ]
        )
        drawn = nn.functional.normalize(drawn * self.transformer.std + self.transformer.mean, dim=-1) * side
        best = (drawn * vectors).sum(-1).argmax(0)
        return drawn[best, torch.arange(len(words), device=words.device)]

    @torch.no_grad()
    def score(
        self, images: UInt8[Tensor, "i 3 h w"], tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]
    ) -> Float[Tensor, "i b"]:
        """The cosine of each image's vector and the vector that is drawn for each text."""
        keys = Painting().keys(1, tokens.device).expand(len(tokens))  # a text's vector is the same in any place
        drawn = self.sample_vectors(tokens, lengths, keys)
        return self.clip.encode_image(images) @ nn.functional.normalize(drawn, dim=-1).T

    @torch.no_grad()
    def image_features(self, images: UInt8[Tensor, "i 3 h w"]) -> Float[Tensor, "i p d"]:
        """Tokens of CLIP's image tower, which is all that a prior sees of images."""
        return self.clip.image_tower.tokens(self.clip.normalise(images))
