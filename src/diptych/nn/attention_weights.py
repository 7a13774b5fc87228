"""The weights of attention, for those who want to look at them: computed in the open only while somebody looks."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float, Int64
from torch import Tensor

from diptych.nn.attention import Attention
from diptych.nn.rotary import Rotary, rotate


@contextmanager
def keep_attention(modules: Iterable[Attention]) -> Iterator[list[Float[Tensor, "b n q s"]]]:
    """While it is open, the attentions' outputs are computed from their weights, which are put into the list as they
    come: part of the graph, so that gradients with respect to them can be asked for.

    The same function as the fused kernel's, up to rounding. Outside, nothing is changed or slower.
    """
    kept: list[Tensor] = []

    def look(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        out, weights = attend_openly(module, *args, **kwargs)
        kept.append(weights)
        return out

    handles = [m.register_forward_hook(look, with_kwargs=True) for m in modules]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def attend_openly(
    attention: Attention,
    x: Float[Tensor, "b q d"],
    mask: None = None,
    context: Float[Tensor, "b s c"] | None = None,
    only: Int64[Tensor, " m"] | None = None,
    rotary: Rotary | None = None,
    cache: None = None,
) -> tuple[Float[Tensor, "b q d"] | Float[Tensor, "m d"], Float[Tensor, "b n q s"]]:
    """What `attention` returns (without mask and cache, as in towers of images), and the weights of its n heads:
    softmax(q k^T / sqrt(head width))."""
    assert mask is None and cache is None  # noqa: PT018
    a = attention
    q, k, v = a._projected(x, context, cache)
    if a.q_norm is not None and a.k_norm is not None:
        q, k = a.q_norm(q).to(v.dtype), a.k_norm(k).to(v.dtype)
    if rotary is not None:
        q, k = rotate(q, rotary), rotate(k, rotary)
    if a.kv_heads != a.heads:
        k, v = (t.repeat_interleave(a.heads // a.kv_heads, dim=1) for t in (k, v))
    weights = ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).softmax(-1)  # (b, n, q, s)
    out = (weights.to(v.dtype) @ v).transpose(1, 2).flatten(2)
    if only is not None:
        out = out.flatten(0, 1).index_select(0, only)
    return a.out_proj(out if a.inner_norm is None else a.inner_norm(out)), weights
