"""Random numbers that a key decides: on any device, in any batch, on any rank and after any restart the same.

The same numbers as those of `data/draws.py`, bit for bit, as tensors: stream `name` of key k is splitmix64 (Steele,
Lea and Flood, 2014) from mix(k xor fold(name)) on. Nothing is read back from a device.
"""

import math

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from diptych.core.seeds import fold

_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)


def words(keys: Int64[Tensor, " b"], name: str, count: int) -> Int64[Tensor, "b {count}"]:
    """Uniform 64-bit words."""
    state = _mix(keys ^ fold(name))[:, None]
    return _mix(state + torch.arange(1, count + 1, device=keys.device) * _GAMMA)


def uniform(keys: Int64[Tensor, " b"], name: str, count: int) -> Float[Tensor, "b {count}"]:
    """Uniform in [0, 1), with 24 random bits: all that float32 holds."""
    return _shifted(words(keys, name, count), 40).float() * 2.0**-24


def normal(keys: Int64[Tensor, " b"], name: str, count: int) -> Float[Tensor, "b {count}"]:
    """Standard normal (Box and Muller, 1958), float32."""
    u = uniform(keys, name, 2 * count)
    return (-2 * torch.log1p(-u[:, :count])).sqrt() * torch.cos(2 * math.pi * u[:, count:])


def happens(keys: Int64[Tensor, " b"], name: str, probability: float) -> Bool[Tensor, " b"]:
    """True with `probability`."""
    return uniform(keys, name, 1)[:, 0] < probability


def _mix(x: Tensor) -> Tensor:
    """splitmix64's finaliser; products and sums wrap, as they should."""
    x = x + _GAMMA
    x = (x ^ _shifted(x, 30)) * _FIRST
    x = (x ^ _shifted(x, 27)) * _SECOND
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Shifted right with zeros coming in, which torch has for no signed type."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
