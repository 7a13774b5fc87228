"""Pictures with a heat map over them, and boxes: small ones, for reports."""

import base64

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from diptych.data.decode import encode_jpeg

RAMP = ((0, 0, 90), (0, 110, 200), (70, 190, 110), (250, 210, 40), (220, 30, 20))
"""Colours of heat 0 to 1, evenly spaced."""
WEIGHT = 0.55
"""How much of the colour is seen at full heat; at none, 0.25 of it."""
SIDE = 160


def blend(
    image: UInt8[Tensor, "3 h w"], heat: Float[np.ndarray, "h w"], boxes: Float64[np.ndarray, "k 4"]
) -> UInt8[Tensor, "3 h2 w2"]:
    """`image` greyed and coloured by heat (0..1), with white outlines of boxes (left, top, right, bottom, in its
    pixels), its long side SIDE."""
    scale = SIDE / max(image.shape[1:])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[2] * scale))
    picture = F.interpolate(image[None].float(), size, mode="bilinear", antialias=True)[0]
    warm = F.interpolate(torch.from_numpy(heat)[None, None].float(), size, mode="bilinear")[0, 0].clamp(0, 1)
    place = warm * (len(RAMP) - 1)
    low = place.floor().long().clamp(max=len(RAMP) - 2)
    ramp = torch.tensor(RAMP, dtype=torch.float32)
    colour = torch.lerp(ramp[low], ramp[low + 1], (place - low)[..., None]).permute(2, 0, 1)  # (3, h2, w2)
    weight = 0.25 + (WEIGHT - 0.25) * warm
    seen = torch.lerp(picture, colour, weight).round().clamp(0, 255).to(torch.uint8)
    for left, top, right, bottom in (boxes * scale).tolist():
        _outline(seen, left, top, right, bottom)
    return seen


def encoded(image: UInt8[Tensor, "3 h w"]) -> str:
    """A JPEG in base64, as figures want it."""
    return base64.b64encode(encode_jpeg(image.contiguous(), quality=80)).decode()


def _outline(image: Tensor, left: float, top: float, right: float, bottom: float) -> None:
    height, width = image.shape[1:]
    x0, x1 = (min(max(round(v), 0), width - 1) for v in (left, right - 1))
    y0, y1 = (min(max(round(v), 0), height - 1) for v in (top, bottom - 1))
    image[:, y0 : y1 + 1, [x0, x1]] = 255
    image[:, [y0, y1], x0 : x1 + 1] = 255
