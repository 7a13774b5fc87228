"""Multi-head attention with explicit projections, and the one path to the fused kernels."""

import inspect

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from diptych.core.errors import ConfigError
from diptych.nn.cache import KeyValues
from diptych.nn.mask import MaskPlan, Runs
from diptych.nn.norm import HeadNormKind, NormKind, build_head_norm, build_norm
from diptych.nn.rotary import Rotary, rotate

try:  # since torch 2.11
    from torch.nn.attention.varlen import varlen_attn
except ImportError:
    varlen_attn = None  # type: ignore[assignment]

SHORT = 256 * 256
"""Queries times keys up to which weights are held in full on a CPU in bf16: 128 kB a head and sample at most."""


def attend(
    q: Float[Tensor, "b n q k"], k: Float[Tensor, "b n s k"], v: Float[Tensor, "b n s k"], mask: MaskPlan | None = None
) -> Float[Tensor, "b n q k"]:
    """softmax(q k^T / sqrt(head width)) v under `mask`. A query that sees nothing gets zeros, and gives no gradient.

    The fused kernel, but for bf16 on a CPU: there its backward takes 2 (197 tokens) to 10 (12 tokens) times as long as
    that of two matrix products, its forward as long (measured with torch 2.13 on one thread).
    """
    if mask is not None and mask.runs is not None:
        return attend_runs(q, k, v, mask.runs, mask.is_causal)
    is_causal = mask is not None and mask.is_causal
    allowed = None if mask is None else mask.allowed
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[2] * k.shape[2] <= SHORT:
        if is_causal:
            allowed = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
        out = attend_by_matmul(q, k, v, allowed)
    else:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, is_causal=is_causal)
    return out if mask is None or mask.sees is None else torch.where(mask.sees, out, 0)


def attend_by_matmul(
    q: Float[Tensor, "b n q k"],
    k: Float[Tensor, "b n s k"],
    v: Float[Tensor, "b n s k"],
    allowed: Bool[Tensor, "*m q s"] | Bool[Tensor, "*m 1 s"] | None,
) -> Float[Tensor, "b n q k"]:
    """The same with the weights in full. Every query must see a key."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # (b, n, q, s)
    if allowed is not None:
        scores = scores.masked_fill(~allowed, float("-inf"))
    return scores.softmax(-1).to(v.dtype) @ v


def attend_runs(
    q: Float[Tensor, "1 n t k"], k: Float[Tensor, "1 n t k"], v: Float[Tensor, "1 n t k"], runs: Runs, is_causal: bool
) -> Float[Tensor, "1 n t k"]:
    """The same where segments lie back to back and see only themselves: no matrix, no work between segments.

    Only where `has_runs_kernel` says so.
    """
    window = (-1, 0) if is_causal else (-1, -1)
    query, key, value = (x[0].transpose(0, 1) for x in (q, k, v))  # (t, n, k)
    out = varlen_attn(query, key, value, runs.bounds, runs.bounds, runs.longest, runs.longest, window_size=window)
    assert isinstance(out, Tensor)  # without the auxiliary outputs
    return out.transpose(0, 1)[None]


def has_runs_kernel(device: torch.device, dtype: torch.dtype, head_width: int) -> bool:
    """Whether attention of variable lengths has a kernel: flash attention's, on CUDA from Ampere on, in half precision.

    Its gradient exists for heads of up to 256 numbers, a multiple of 8.
    """
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16) or torch.version.hip is not None:
        return False
    if varlen_attn is None or "window_size" not in inspect.signature(varlen_attn).parameters:
        return False  # torch 2.10 spelled causality otherwise
    return head_width <= 256 and head_width % 8 == 0 and torch.cuda.get_device_capability(device) >= (8, 0)


class Attention(nn.Module):
    """Self-attention, or cross-attention where `context` is given. Projections are apart: LoRA and renaming just work.

    `qk_norm` normalises each head's queries and keys (Chameleon, ViT-22B); `inner_norm` puts a norm before out_proj
    (Sub-LN); `context_width` is the width of what is attended to, where it differs. `kv_heads`: several heads share
    their keys and values (grouped queries, Ainslie et al. 2023); `inner_width`: that of all heads together, where it is
    not `width` (Flamingo).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        bias: bool = True,
        qk_norm: HeadNormKind | None = None,
        inner_norm: NormKind | None = None,
        eps: float = 1e-5,
        context_width: int | None = None,
        kv_heads: int = 0,
        inner_width: int = 0,
    ) -> None:
        super().__init__()
        inner, kv_heads = inner_width or width, kv_heads or heads
        if heads < 1 or inner % heads:
            raise ConfigError(f"width must be a multiple of heads; got width {inner}, heads {heads}. Change either.")
        if heads % kv_heads:
            raise ConfigError(f"heads must be a multiple of kv_heads; got {heads} and {kv_heads}. Change either.")
        self.heads, self.kv_heads = heads, kv_heads
        source, head = width if context_width is None else context_width, inner // heads
        self.q_proj = nn.Linear(width, inner, bias=bias)
        self.k_proj = nn.Linear(source, kv_heads * head, bias=bias)
        self.v_proj = nn.Linear(source, kv_heads * head, bias=bias)
        self.out_proj = nn.Linear(inner, width, bias=bias)
        self.q_norm = None if qk_norm is None else build_head_norm(qk_norm, heads, head, eps)
        self.k_norm = None if qk_norm is None else build_head_norm(qk_norm, kv_heads, head, eps)
        self.inner_norm = None if inner_norm is None else build_norm(inner_norm, inner, eps)

    def forward(
        self,
        x: Float[Tensor, "b q d"],
        mask: MaskPlan | None = None,
        context: Float[Tensor, "b s c"] | None = None,
        only: Int64[Tensor, " n"] | None = None,
        rotary: Rotary | None = None,
        cache: KeyValues | None = None,
    ) -> Float[Tensor, "b q d"] | Float[Tensor, "n d"]:
        """`only`: the places, counted row by row, whose outputs are wanted; then only these are projected.

        `rotary` turns queries and keys of self-attention. With a `cache`, x are the tokens that follow those in it, and
        `mask` is over all of its keys and theirs; a context's keys are computed when it is first given.
        """
        q, k, v = self._projected(x, context, cache)
        if self.q_norm is not None and self.k_norm is not None:
            q = self.q_norm(q).to(v.dtype)
            k = k if context is not None and cache is not None and cache.length else self.k_norm(k).to(v.dtype)
        if rotary is not None:
            q, k = rotate(q, rotary), rotate(k, rotary)
        if cache is not None and (context is None or not cache.length):
            k, v = cache.extend(k, v)
        if self.kv_heads != self.heads:
            k, v = (t.repeat_interleave(self.heads // self.kv_heads, dim=1) for t in (k, v))
        out = attend(q, k, v, mask).transpose(1, 2).flatten(2)  # (b, q, d)
        if only is not None:
            out = out.flatten(0, 1).index_select(0, only)
        return self.out_proj(out if self.inner_norm is None else self.inner_norm(out))

    def _projected(self, x: Tensor, context: Tensor | None, cache: KeyValues | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (b, n, s, k) each; those of a context that was read already are in the cache."""
        if context is None and x.is_cuda and self._plain():
            widths = [p.out_features for p in (self.q_proj, self.k_proj, self.v_proj)]
            q, k, v = self._stacked(x).split(widths, dim=-1)
            return self._split(q, self.heads), self._split(k, self.kv_heads), self._split(v, self.kv_heads)
        q = self._split(self.q_proj(x), self.heads)
        if context is not None and cache is not None and cache.length:
            return q, cache.keys, cache.values
        source = x if context is None else context
        return q, self._split(self.k_proj(source), self.kv_heads), self._split(self.v_proj(source), self.kv_heads)

    def _plain(self) -> bool:
        """Whether nothing (LoRA, a hook) stands in the place of the three projections, so that they may be stacked."""
        three = (self.q_proj, self.k_proj, self.v_proj)
        return all(type(p) is nn.Linear and not (p._forward_hooks or p._forward_pre_hooks) for p in three)

    def _stacked(self, x: Tensor) -> Tensor:
        """Queries, keys and values side by side, from one product with the three weights stacked.

        For CUDA, where a product thrice as wide fills the chip better and two launches are saved. On a CPU the ratio to
        three products is 0.95 to 1.05, forward and backward (widths 192 to 768, 512 to 13,000 tokens): not worth it.
        """
        three = (self.q_proj, self.k_proj, self.v_proj)
        biases: list[Tensor] = [p.bias for p in three if p.bias is not None]
        bias = torch.cat(biases) if biases else None
        return F.linear(x, torch.cat([p.weight for p in three]), bias)

    def _split(self, x: Tensor, heads: int) -> Tensor:
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)  # (b, n, s, k)
