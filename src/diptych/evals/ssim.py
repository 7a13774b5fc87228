"""How alike two images are: PSNR, and structural similarity (Wang et al., 2004)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

WINDOW, SIGMA = 11, 1.5
"""The Gaussian window of the paper."""
K1, K2 = 0.01, 0.03
MOST_DB = 60.0
"""PSNR of images that are equal, or nearly: its limit is infinite."""


def psnr(found: UInt8[Tensor, "b 3 h w"], wanted: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
    """10 log10(255^2 / mean squared difference) of each pair, in dB, at most MOST_DB."""
    error = (found.double() - wanted.double()).square().mean((1, 2, 3))
    return 10 * (255**2 / error.clamp_min(255**2 * 10 ** (-MOST_DB / 10))).log10()


def ssim(found: UInt8[Tensor, "b 3 h w"], wanted: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
    """The mean over channels and places of (2 m n + c) (2 s + d) / ((m^2 + n^2 + c) (v + w + d)), with local means m
    and n, variances v and w and covariance s under a Gaussian window that lies wholly inside: 1 of equal images. Images
    smaller than the window have a smaller one."""
    x, y = found.double(), wanted.double()
    size = min(WINDOW, *(n - 1 + n % 2 for n in x.shape[2:]))
    taps = torch.exp(-((torch.arange(size, device=x.device) - size // 2) ** 2) / (2 * SIGMA**2)).double()
    taps = taps / taps.sum()

    def local(z: Tensor) -> Tensor:
        z = F.conv2d(z.flatten(0, 1)[:, None], taps.view(1, 1, -1, 1))
        return F.conv2d(z, taps.view(1, 1, 1, -1)).unflatten(0, x.shape[:2])[:, :, 0]

    m, n = local(x), local(y)
    v, w, s = local(x * x) - m * m, local(y * y) - n * n, local(x * y) - m * n
    c, d = (255 * K1) ** 2, (255 * K2) ** 2
    each = (2 * m * n + c) * (2 * s + d) / ((m * m + n * n + c) * (v + w + d))
    return each.mean((1, 2, 3))
