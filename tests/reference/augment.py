"""Augmentation as plain loops over pixels, from the definitions: the twin of diptych.data.augment."""

import math

import numpy as np
from PIL import Image

from diptych.data.augment import AugmentConfig
from diptych.data.draws import Draws


def crop_and_resize(image: np.ndarray, box: tuple[int, int, int, int], side: int, bicubic: bool) -> np.ndarray:
    """(3, h, w) uint8 to (3, side, side) by Pillow; box is (top, left, height, width)."""
    top, left, height, width = box
    picture = Image.fromarray(image.transpose(1, 2, 0))
    how = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
    part = picture.crop((left, top, left + width, top + height)).resize((side, side), how)
    return np.asarray(part).transpose(2, 0, 1)


def vary(image: np.ndarray, key: int, c: AugmentConfig, fill: tuple[int, int, int]) -> np.ndarray:
    """The second stage on one (3, s, s) uint8 image, without gamma and cutout; float pixels, not yet rounded."""
    d = Draws([key])
    x = image.astype(np.float64)
    ground = np.array(fill, dtype=np.float64)
    if d.uniform("background")[0, 0] < c.background:
        x, ground = recolour_ground(x, ground, d.uniform("background colour", 3, 0.0, 255.0)[0])
    x = move(x, d, c, ground)
    weight = d.uniform("blur", 2, -c.blur, 1.0)[0, 0] if c.blur and d.uniform("blurred")[0, 0] < 0.5 else 0.0
    x = x + weight * (mean_3x3(x) - x)
    x = recolour(x, d, c)
    if c.lighting:
        x = x * (1 + bilinear(d.normal("lighting", 9)[0].reshape(3, 3) * c.lighting, x.shape[-1]))
    if c.noise:
        x = x + d.uniform("noise level", 1, 0.0, 255 * c.noise)[0, 0] * d.coarse_normal("noise", x.size)[0].reshape(
            x.shape
        )
    return x.clip(0, 255)


def recolour_ground(x: np.ndarray, ground: np.ndarray, colour: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    out = x.copy()
    for i, j in np.ndindex(x.shape[1:]):
        near = max(0.0, 1 - np.abs(x[:, i, j] - ground).max() / 16)
        out[:, i, j] += near * (colour - ground)
    return out, colour


def move(x: np.ndarray, d: Draws, c: AugmentConfig, ground: np.ndarray) -> np.ndarray:
    """Each pixel of the result looks up where it came from."""
    side = x.shape[-1]
    angle = math.radians(d.uniform("rotate", 1, -c.rotate, c.rotate)[0, 0])
    zoom = math.exp(d.uniform("zoom", 1, math.log(c.zoom[0]), math.log(c.zoom[1]))[0, 0])
    stretch = math.exp(d.uniform("stretch", 1, -c.stretch, c.stretch)[0, 0] / 2)
    shear = d.uniform("shear", 1, -c.shear, c.shear)[0, 0]
    shift = d.uniform("translate", 2, -2 * c.translate, 2 * c.translate)[0]
    out = np.empty_like(x)
    for i, j in np.ndindex(side, side):
        u, v = (2 * j + 1) / side - 1, (2 * i + 1) / side - 1  # centre of the pixel, -1 to 1
        from_u = (math.cos(angle) * u + (shear - math.sin(angle)) * v) / (zoom * stretch) + shift[0]
        from_v = (math.sin(angle) * u + math.cos(angle) * v) / (zoom / stretch) + shift[1]
        col, row = ((from_u + 1) * side - 1) / 2, ((from_v + 1) * side - 1) / 2
        out[:, i, j] = look_up(x, row, col, None if c.border == "edge" else ground)
    return out


def look_up(x: np.ndarray, row: float, col: float, outside: np.ndarray | None) -> np.ndarray:
    """Bilinear; beyond the edge is `outside`, or the edge itself."""
    side = x.shape[-1]
    if outside is None:
        row, col = min(max(row, 0), side - 1), min(max(col, 0), side - 1)
    total = np.zeros(3)
    for i in (math.floor(row), math.floor(row) + 1):
        for j in (math.floor(col), math.floor(col) + 1):
            weight = (1 - abs(row - i)) * (1 - abs(col - j))
            inside = 0 <= i < side and 0 <= j < side
            if inside or outside is not None:
                total += weight * (x[:, i, j] if inside else outside)
    return total


def mean_3x3(x: np.ndarray) -> np.ndarray:
    side = x.shape[-1]
    out = np.zeros_like(x)
    for i, j in np.ndindex(side, side):
        for a in (-1, 0, 1):
            for b in (-1, 0, 1):
                out[:, i, j] += x[:, min(max(i + a, 0), side - 1), min(max(j + b, 0), side - 1)] / 9
    return out


def recolour(x: np.ndarray, d: Draws, c: AugmentConfig) -> np.ndarray:
    """One operation after another, where the fast path multiplies matrices."""
    angle = d.uniform("hue", 1, -c.hue, c.hue)[0, 0] * 2 * math.pi
    saturation = d.uniform("saturation", 1, 1 - c.saturation, 1 + c.saturation)[0, 0]
    if d.uniform("grayscale")[0, 0] < c.grayscale:
        saturation = 0.0
    gains = d.uniform("channel", 3, 1 - c.channel, 1 + c.channel)[0]
    contrast = d.uniform("contrast", 1, 1 - c.contrast, 1 + c.contrast)[0, 0]
    brightness = d.uniform("brightness", 1, -c.brightness, c.brightness)[0, 0]
    axis = np.ones(3) / math.sqrt(3)
    out = np.empty_like(x)
    for i, j in np.ndindex(x.shape[1:]):
        v = x[:, i, j]
        v = v * math.cos(angle) + np.cross(axis, v) * math.sin(angle) + axis * (axis @ v) * (1 - math.cos(angle))
        luma = 0.299 * v[0] + 0.587 * v[1] + 0.114 * v[2]
        v = luma + saturation * (v - luma)
        v = 127.5 + contrast * (gains * v - 127.5) + 255 * brightness
        out[:, i, j] = 255 - v if d.uniform("invert")[0, 0] < c.invert else v
    return out


def bilinear(field: np.ndarray, side: int) -> np.ndarray:
    """A small square field stretched so that its corners meet the corners."""
    at, known = np.linspace(0, len(field) - 1, side), np.arange(len(field))
    rows = np.stack([np.interp(at, known, row) for row in field])
    return np.stack([np.interp(at, known, column) for column in rows.T], axis=1)
