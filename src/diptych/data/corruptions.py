"""Corruptions of images at five severities: noise, blur, light, and what cameras and networks do to pixels.

Kinds and constants of noise, brightness, contrast, pixelation and JPEG are those of Hendrycks and Dietterich, 2019,
"Benchmarking Neural Network Robustness to Common Corruptions and Perturbations" (ImageNet-C). They are not that
benchmark: pixels are corrupted as they stand, at whatever side they have, not at 224 and not before a resize; values
are rounded, not cut; a blur's radius is a share of the side (`REFERENCE_SIDE`).
"""

import io
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float64, UInt8
from PIL import Image
from torch import Tensor

from diptych.core.errors import ConfigError
from diptych.core.seeds import numpy_generator

SEVERITIES = (1, 2, 3, 4, 5)
REFERENCE_SIDE = 224
"""The side for which the radii of blurs are given: an image of half the side is blurred half as far."""

GAUSSIAN = (0.08, 0.12, 0.18, 0.26, 0.38)
SHOT = (60.0, 25.0, 12.0, 5.0, 3.0)
IMPULSE = (0.03, 0.06, 0.09, 0.17, 0.27)
DEFOCUS = (3.0, 4.0, 6.0, 8.0, 10.0)
BLUR = (1.0, 2.0, 3.0, 4.0, 6.0)
BRIGHTNESS = (0.1, 0.2, 0.3, 0.4, 0.5)
CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)
PIXELATE = (0.6, 0.5, 0.4, 0.3, 0.25)
JPEG = (25, 18, 15, 10, 7)

Pixels = Float64[np.ndarray, "h w 3"]
"""Values in 0..1."""


def corrupt(image: UInt8[Tensor, "3 h w"], kind: str, severity: int, *seed: int | str) -> UInt8[Tensor, "3 h w"]:
    """`image` with one of `CORRUPTIONS` at a severity of 1 to 5. Noise is a pure function of `seed`, kind and severity:
    equal for every model that sees images of this side."""
    if kind not in CORRUPTIONS or severity not in SEVERITIES:
        raise ConfigError(
            f"a corruption must be one of {', '.join(CORRUPTIONS)} at a severity of 1 to 5; got {kind!r} at {severity}."
        )
    pixels = image.permute(1, 2, 0).numpy().astype(np.float64) / 255
    found = CORRUPTIONS[kind](pixels, severity - 1, numpy_generator(kind, severity, *seed))
    rounded = np.rint(np.clip(found, 0, 1) * 255).astype(np.uint8)
    return torch.from_numpy(np.ascontiguousarray(rounded.transpose(2, 0, 1)))


def gaussian_noise(x: Pixels, level: int, draws: np.random.Generator) -> Pixels:
    """x + N(0, c^2) in every channel."""
    return x + draws.normal(scale=GAUSSIAN[level], size=x.shape)


def shot_noise(x: Pixels, level: int, draws: np.random.Generator) -> Pixels:
    """Poisson(c x) / c: photons that are counted, c at most on average."""
    return draws.poisson(x * SHOT[level]) / SHOT[level]


def impulse_noise(x: Pixels, level: int, draws: np.random.Generator) -> Pixels:
    """A share c of values becomes 0 or 1, in equal parts."""
    hit = draws.random(x.shape) < IMPULSE[level]
    return np.where(hit, (draws.random(x.shape) < 0.5).astype(np.float64), x)


def defocus_blur(x: Pixels, level: int, draws: np.random.Generator) -> Pixels:
    """The mean over a disk with a smooth rim, as of a lens out of focus."""
    radius = DEFOCUS[level] * min(x.shape[:2]) / REFERENCE_SIDE
    reach = int(np.ceil(radius + 0.5))
    y, z = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return _convolve(x, np.clip(radius + 0.5 - np.hypot(y, z), 0, 1))  # a pixel that the rim cuts counts in part


def gaussian_blur(x: Pixels, level: int, draws: np.random.Generator) -> Pixels:
    """A Gaussian of standard deviation c, cut at four of them."""
    sigma = BLUR[level] * min(x.shape[:2]) / REFERENCE_SIDE
    place = np.arange(-max(1, round(4 * sigma)), max(1, round(4 * sigma)) + 1)
    bell = np.exp(-0.5 * (place / sigma) ** 2)
    return _convolve(x, np.outer(bell, bell))


def brightness(x: Pixels, level: int, draws: np.random.Generator) -> Pixels:
    """Value + c in HSV, hue and saturation unchanged: all three channels grow by one factor (black becomes grey)."""
    value = x.max(2, keepdims=True)
    raised = np.clip(value + BRIGHTNESS[level], 0, 1)
    return np.where(value > 0, x * raised / np.where(value > 0, value, 1), raised)


def contrast(x: Pixels, level: int, draws: np.random.Generator) -> Pixels:
    """Each channel drawn towards its mean, to c of its spread."""
    mean = x.mean((0, 1), keepdims=True)
    return mean + (x - mean) * CONTRAST[level]


def pixelate(x: Pixels, level: int, draws: np.random.Generator) -> Pixels:
    """Shrunk to c of both sides by the mean of boxes, and stretched again."""
    height, width = x.shape[:2]
    image = _image(x)
    small = image.resize(
        (max(1, int(width * PIXELATE[level])), max(1, int(height * PIXELATE[level]))), Image.Resampling.BOX
    )
    return np.asarray(small.resize((width, height), Image.Resampling.BOX), np.float64) / 255


def jpeg(x: Pixels, level: int, draws: np.random.Generator) -> Pixels:
    """Stored as JPEG of quality c."""
    buffer = io.BytesIO()
    _image(x).save(buffer, "JPEG", quality=JPEG[level])
    return np.asarray(Image.open(buffer), np.float64) / 255


CORRUPTIONS: dict[str, Callable[[Pixels, int, np.random.Generator], Pixels]] = {
    f.__name__: f
    for f in (
        gaussian_noise,
        shot_noise,
        impulse_noise,
        defocus_blur,
        gaussian_blur,
        brightness,
        contrast,
        pixelate,
        jpeg,
    )
}
"""What can be done to an image, by name."""


def _convolve(x: Pixels, kernel: Float64[np.ndarray, "k k"]) -> Pixels:
    """Each channel with a kernel whose sum is made one; the border is mirrored, its last row included."""
    reach = kernel.shape[0] // 2
    padded = np.pad(x, ((reach, reach), (reach, reach), (0, 0)), mode="symmetric")
    planes = torch.from_numpy(np.ascontiguousarray(padded.transpose(2, 0, 1)))[:, None]
    weight = torch.from_numpy(kernel / kernel.sum())[None, None]
    return np.asarray(F.conv2d(planes, weight)[:, 0].permute(1, 2, 0))


def _image(x: Pixels) -> Image.Image:
    return Image.fromarray(np.rint(x * 255).astype(np.uint8))
