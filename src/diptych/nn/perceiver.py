"""Flamingo's two parts (Alayrac et al., 2022, arXiv:2204.14198): the resampler, which turns any number of image tokens
into a few, and the gated cross-attention, by which a language model looks at them and is at first what it was before.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor, nn

from diptych.core.config import Config
from diptych.core.errors import ConfigError
from diptych.nn.attention import Attention
from diptych.nn.block import init_scaled
from diptych.nn.cache import KeyValues
from diptych.nn.mask import MaskPlan
from diptych.nn.mlp import MLP, Activation
from diptych.nn.norm import NormKind, build_norm


class ResamplerConfig(Config):
    """Settings of a resampler; its width is that of what it is given.

    latents     how many tokens come out, each a learned vector at first
    head_width  numbers a head; heads * head_width need not be the width
    mlp_ratio   hidden width of each MLP, by the width
    activation  "gelu" (Flamingo); "relu" (Idefics)
    qk_norm     a layer norm on each head's queries and keys (Idefics)
    """

    latents: int = Field(default=64, gt=0)
    depth: int = Field(default=6, ge=1)
    heads: int = Field(default=8, gt=0)
    head_width: int = Field(default=64, gt=0)
    mlp_ratio: float = Field(default=4.0, gt=0)
    activation: Activation = "gelu"
    qk_norm: bool = False
    norm_eps: float = Field(default=1e-5, gt=0)


class ResamplerBlock(nn.Module):
    """latents + attention of norm(latents) to [norm(tokens), norm(latents)], then + MLP(norm); biases in norms only."""

    recomputable: ClassVar[bool] = True
    """See nn/checkpointing.py."""

    def __init__(self, config: ResamplerConfig, width: int) -> None:
        super().__init__()
        c = config
        qk: NormKind | None = "layer" if c.qk_norm else None
        self.norm_tokens, self.norm_latents = (build_norm("layer", width, c.norm_eps) for _ in range(2))
        self.attention = Attention(
            width,
            c.heads,
            bias=False,
            qk_norm=qk,
            eps=c.norm_eps,
            context_width=width,
            inner_width=c.heads * c.head_width,
        )
        self.norm_mlp = build_norm("layer", width, c.norm_eps)
        self.mlp = MLP(width, round(width * c.mlp_ratio), c.activation, bias=False)

    def forward(self, latents: Float[Tensor, "i m d"], tokens: Float[Tensor, "i p d"]) -> Float[Tensor, "i m d"]:
        asks = self.norm_latents(latents)
        latents = latents + self.attention(asks, context=torch.cat([self.norm_tokens(tokens), asks], dim=1))
        return latents + self.mlp(self.norm_mlp(latents))


class PerceiverResampler(nn.Module):
    """`latents` tokens from all tokens of an image, or of all frames of a video (Flamingo, appendix A.1.1).

    `frames`, `media`: how many frames, and how many images of a record, have a learned vector of their own, which is
    added to their tokens (0: none has). First weights: latents and those vectors N(0, 1), as the public code draws
    them, blocks as in `init_scaled`.
    """

    def __init__(self, config: ResamplerConfig, width: int, frames: int = 0, media: int = 0) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(config.latents, width))
        self.frame_embed = nn.Parameter(torch.randn(frames, width)) if frames else None
        self.media_embed = nn.Parameter(torch.randn(media, width)) if media else None
        self.blocks = nn.ModuleList(ResamplerBlock(config, width) for _ in range(config.depth))
        self.norm = build_norm("layer", width, config.norm_eps)
        init_scaled(self.blocks, width, config.depth)

    def forward(
        self, x: Float[Tensor, "i p d"] | Float[Tensor, "i f p d"], number: Int64[Tensor, " i"] | None = None
    ) -> Float[Tensor, "i m d"]:
        """`x`: tokens of images, or of the frames of videos; `number`: which image of its record each is, from 0."""
        if self.media_embed is not None:
            if number is None:
                raise ConfigError("a resampler with media must be told which image of its record each is; got none.")
            chosen = nn.functional.embedding(number, self.media_embed)
            x = x + chosen.view(len(x), *[1] * (x.ndim - 2), -1)
        if self.frame_embed is not None:
            frames = x if x.ndim == 4 else x[:, None]
            if frames.shape[1] > len(self.frame_embed):
                raise ConfigError(
                    f"a video must have at most {len(self.frame_embed)} frames; got {frames.shape[1]}. Take fewer."
                )
            x = frames + self.frame_embed[: frames.shape[1], None]
        tokens = x.flatten(1, 2) if x.ndim == 4 else x
        latents = self.latents.to(x.dtype).expand(len(x), -1, -1)
        for block in self.blocks:
            latents = block(latents, tokens)
        return self.norm(latents)

    def decay_free(self) -> set[str]:
        """The learned vectors; the paper decays nothing of a resampler, which is for its owner to say."""
        learned = {"latents": self.latents, "frame_embed": self.frame_embed, "media_embed": self.media_embed}
        return {name for name, p in learned.items() if p is not None}


class GatedCrossAttentionConfig(Config):
    """Settings of gated cross-attention.

    heads, head_width  of the attention
    mlp_ratio          hidden width of the MLP, by the width
    activation         "gelu" (Flamingo); "swiglu" (Idefics)
    norm               "layer" (Flamingo); "rms" (Idefics)
    qk_norm            a norm on each head's queries and keys (Idefics 80b)
    gate               one number ("scalar", Flamingo) or one for each of the width's ("vector", Idefics)
    """

    heads: int = Field(default=8, gt=0)
    head_width: int = Field(default=64, gt=0)
    mlp_ratio: float = Field(default=4.0, gt=0)
    activation: Activation = "gelu"
    norm: NormKind = "layer"
    norm_eps: float = Field(default=1e-5, gt=0)
    qk_norm: bool = False
    gate: Literal["scalar", "vector"] = "scalar"


class GatedCrossAttention(nn.Module):
    """x + tanh(gate) attention(norm(x), images), then x + tanh(mlp_gate) MLP(norm(x)) (Flamingo, figure 4). Both gates
    are zero at first, so that it is then the identity. No biases but the norms': where nothing is seen, nothing is
    added by the attention."""

    recomputable: ClassVar[bool] = True
    """See nn/checkpointing.py."""

    def __init__(self, config: GatedCrossAttentionConfig, width: int, context_width: int) -> None:
        super().__init__()
        c = config
        qk = c.norm if c.qk_norm else None
        inner, size = c.heads * c.head_width, () if c.gate == "scalar" else (width,)
        self.norm_1 = build_norm(c.norm, width, c.norm_eps)
        self.attention = Attention(
            width, c.heads, bias=False, qk_norm=qk, eps=c.norm_eps, context_width=context_width, inner_width=inner
        )
        self.gate = nn.Parameter(torch.zeros(size))
        self.norm_2 = build_norm(c.norm, width, c.norm_eps)
        self.mlp = MLP(width, round(width * c.mlp_ratio), c.activation, bias=False)
        self.mlp_gate = nn.Parameter(torch.zeros(size))
        init_scaled([self], width, 1)

    def forward(
        self,
        x: Float[Tensor, "r l d"],
        context: Float[Tensor, "r k c"] | None,
        mask: MaskPlan | None = None,
        cache: KeyValues | None = None,
    ) -> Float[Tensor, "r l d"]:
        """`context` None: there is no image, which is as if none were seen. A `cache` that is not empty stands for the
        keys and values of a context that was read before; `context` then only says that there is one."""
        if context is not None:
            x = x + self.gate.tanh() * self.attention(self.norm_1(x), mask, context, cache=cache)
        return x + self.mlp_gate.tanh() * self.mlp(self.norm_2(x))
