"""The smallest model with two towers, for tests of objectives and of the loop."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from diptych.core.batch import Batch
from diptych.core.image_format import ImageFormat
from diptych.models.model import Model, ModelConfig


class TinyConfig(ModelConfig):
    image_format: ImageFormat = ImageFormat(resolution=8)
    context_length: int = 16
    width: int = 8
    embed_dim: int = 4
    bias: bool = False
    batch_norm: bool = False
    dropout: float = 0.0

    def build(self, vocab_size: int) -> "Tiny":
        return Tiny(self, vocab_size)


class Tiny(Model):
    """Average pooled patches through an MLP; the mean of the real tokens' embeddings through a linear map."""

    def __init__(self, config: TinyConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        norm = nn.BatchNorm1d(config.width) if config.batch_norm else nn.LayerNorm(config.width)
        self.image_tower = nn.Sequential(
            nn.Linear(3 * 16, config.width), norm, nn.GELU(), nn.Linear(config.width, config.embed_dim, bias=False)
        )
        self.drop = nn.Dropout(config.dropout)
        self.token_embed = nn.Embedding(vocab_size, config.width)
        self.text_projection = nn.Linear(config.width, config.embed_dim, bias=False)
        self.log_logit_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.logit_bias = nn.Parameter(torch.tensor(-2.0)) if config.bias else None

    def encode_image(self, images: Tensor) -> Tensor:
        x = nn.functional.adaptive_avg_pool2d(self.normalise(images), 4).flatten(1)
        return normalize(self.image_tower(self.drop(x)).float(), dim=1)

    def encode_text(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        real = (torch.arange(tokens.shape[1]) < lengths[:, None]).float()[..., None].to(tokens.device)
        x = (self.token_embed(tokens) * real).sum(1) / real.sum(1)
        return normalize(self.text_projection(self.drop(x)).float(), dim=1)

    @torch.no_grad()
    def embed_image(self, images: Tensor) -> Tensor:
        return self.encode_image(images)

    @torch.no_grad()
    def embed_text(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return self.encode_text(tokens, lengths)

    def decay_free(self) -> set[str]:
        return {"token_embed.weight"}

    def after_step(self) -> None:
        self.log_logit_scale.data.clamp_(0, math.log(100))


def tiny_batch(
    n: int = 6, seed: int = 0, text_ids: list[int] | None = None, image_ids: list[int] | None = None
) -> Batch:
    """n pairs of noise; ids all different unless given."""
    g = torch.Generator().manual_seed(seed)
    return Batch(
        images=torch.randint(0, 256, (n, 3, 8, 8), generator=g, dtype=torch.uint8),
        image_record=torch.arange(n),
        tokens=torch.randint(0, 20, (n, 6), generator=g),
        lengths=torch.randint(1, 7, (n,), generator=g),
        text_ids=torch.tensor(text_ids or list(range(n))),
        image_ids=torch.tensor(image_ids or list(range(n))),
        sample_ids=torch.arange(n),
        sample_keys=torch.arange(n),
    )
