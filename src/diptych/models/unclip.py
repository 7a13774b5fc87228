"""unCLIP, or DALL-E 2 (Ramesh et al., 2022, arXiv:2204.06125): a prior makes an image's vector of a text, a decoder an
image of the vector.

The decoder is a latent diffusion that is told, besides the text, CLIP's vector of the image: projected onto the vector
that goes with the time, and as a few more tokens that are attended to (section 2.1).
"""

import torch
from jaxtyping import Float, Int64, UInt8
from pydantic import Field, model_validator
from torch import Tensor, nn

from diptych.core.batch import Batch
from diptych.models.latent_diffusion import LatentDiffusion, LatentDiffusionConfig
from diptych.models.painting import Painting
from diptych.models.prior import Prior, PriorConfig
from diptych.nn.denoiser import Condition
from diptych.nn.draws import happens
from diptych.nn.samplers import check_sampler


class UnClipConfig(LatentDiffusionConfig):
    """Settings of the decoder, and of the prior before it, which rests.

    prior          whose CLIP gives the vectors of images, in training those of the images themselves
    image_tokens   tokens that the vector becomes, beside the text's
    painted_side   side of what is painted, where it is not that of what CLIP sees; 0: it is
    vector_dropout share of the samples of training that are told no image vector; condition_dropout is that of texts
    """

    prior: PriorConfig = PriorConfig()
    image_tokens: int = Field(default=4, gt=0)
    painted_side: int = Field(default=0, ge=0)
    vector_dropout: float = Field(default=0.1, ge=0, lt=1)
    condition_dropout: float = Field(default=0.5, ge=0, lt=1)

    @model_validator(mode="after")
    def _sees_as_clip_does(self) -> "UnClipConfig":
        for name in ("image_format", "context_length"):
            if getattr(self, name) != getattr(self.prior, name):
                raise ValueError(
                    f"UnClipConfig.{name} must be that of its prior; got {getattr(self, name)} and "
                    f"{getattr(self.prior, name)}. Set both alike; what is painted may have a painted_side of its own."
                )
        return self

    def build(self, vocab_size: int) -> "UnClip":
        check_sampler(self.schedule.build(), self.sampler)
        return UnClip(self, vocab_size)


class UnClip(LatentDiffusion):
    """Paints by way of an image's vector, and varies images that are given."""

    config: UnClipConfig

    def __init__(self, config: UnClipConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        c = config
        prior = c.prior.build(vocab_size)
        assert isinstance(prior, Prior)
        self.prior = prior.requires_grad_(False)
        width, told = self.told_widths()
        self.vector_in = nn.Linear(self.image_width, told)
        self.tokens_in = nn.Linear(self.image_width, c.image_tokens * width)
        self.null_image = nn.Parameter(torch.randn(self.image_width) * 0.02)

    @property
    def image_width(self) -> int:
        """Of CLIP's vectors."""
        return self.config.prior.clip.embed_dim

    def side(self) -> int:
        return self.config.painted_side or super().side()

    def told_widths(self) -> tuple[int, int]:
        return self.text_tower.width, self.config.embed_dim

    def decay_free(self) -> set[str]:
        return super().decay_free() | {f"prior.{n}" for n in self.prior.decay_free()}

    def with_image(self, told: Condition, vectors: Float[Tensor, "b e"]) -> Condition:
        """A condition on a text, and on an image's vector (unit length times sqrt(e)) besides: the tokens of the image
        come first."""
        assert told.tokens is not None
        assert told.lengths is not None
        tokens = self.tokens_in(vectors).unflatten(1, (self.config.image_tokens, -1)).to(told.tokens.dtype)
        vector = self.vector_in(vectors)
        return Condition(
            torch.cat([tokens, told.tokens], dim=1),
            told.lengths + self.config.image_tokens,
            vector if told.vector is None else told.vector + vector,
        )

    def nothing(self, count: int) -> Condition:
        """Neither text nor image."""
        return self.with_image(super().nothing(count), self.null_image.expand(count, -1))

    def told(self, batch: Batch, keys: Int64[Tensor, " b"]) -> Condition:
        """The text and the vector of the image itself, each dropped by itself."""
        assert batch.images is not None
        vectors = self.prior.image_vectors(batch.images).float()
        dropped = happens(keys, "image vector dropped", self.config.vector_dropout)
        return self.with_image(super().told(batch, keys), torch.where(dropped[:, None], self.null_image, vectors))

    def asked(self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"], keys: Int64[Tensor, " b"]) -> Condition:
        """The text, and the vector that the prior draws for it."""
        return self.with_image(self.condition(tokens, lengths), self.prior.sample_vectors(tokens, lengths, keys))

    @torch.no_grad()
    def vary(self, images: UInt8[Tensor, "b 3 h w"], how: Painting) -> UInt8[Tensor, "b 3 h w"]:
        """Other pictures with the vectors of these (section 3.1)."""
        told = super().nothing(len(images))
        return self.paint(self.with_image(told, self.prior.image_vectors(images)), how)
