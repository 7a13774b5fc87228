"""Augmentation on uint8 pixels: what is drawn for sample n depends on (seed, n) alone, never on the batch around it.

Two stages. First each image comes to the model's side: a random resized crop, or the format's own resize. Then the
whole batch, now of one size, goes through the remaining operations as vectorised arithmetic. Every operation treats
each image by itself, in an order of roundings that does not depend on how many there are, so results are equal bit for
bit whether an image comes alone or in company. The plain twin is tests/reference/augment.py.
"""

import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from numpy import ndarray
from pydantic import Field, field_validator
from torch import Tensor

from diptych.core.config import Config
from diptych.core.image_format import ImageFormat
from diptych.data.decode import resize_image, scale_image
from diptych.data.draws import Draws

_CHUNK_PIXELS = 1 << 17
"""Pixels worked on at once: few enough that their floats stay near the core, enough to outweigh the calls."""
_LUMA = (0.299, 0.587, 0.114)


class AugmentConfig(Config):
    """How images are varied in training. The defaults are CLIP's: a random crop of 90 to 100 % and nothing else.

    No flip by default: left and right are words. All ranges are symmetric unless they are given as (low, high).

    crop_scale, crop_ratio   share of the area and aspect ratio of the random crop; crop_scale None: no random crop
    flip, grayscale, invert, cutout   probabilities
    rotate      largest angle in degrees;  zoom: size of the content, log-uniform;  stretch: largest log of the aspect
    shear, translate   largest slope; largest shift as a share of the side
    elastic     standard deviation of a smooth 4 x 4 displacement field, in half sides
    border      what comes in from outside: the format's fill colour, or the edge repeated
    brightness  largest shift, as a share of the range;  contrast, saturation: largest relative change
    hue         largest turn around the grey axis, in turns (0.5 is the opposite colour)
    channel     largest relative change of each channel by itself;  gamma: largest log of the exponent
    lighting    standard deviation of a smooth 3 x 3 field of relative light
    blur        share of images (half) and sign: up to a 3 x 3 mean of weight 1, or sharpened by at most this weight
    noise       largest standard deviation of noise, as a share of the range
    background  probability that pixels of the format's fill colour (and, in part, those near it) take a random one
    """

    crop_scale: tuple[float, float] | None = (0.9, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = Field(default=0.0, ge=0, le=1)
    rotate: float = Field(default=0.0, ge=0, le=180)
    zoom: tuple[float, float] = (1.0, 1.0)
    stretch: float = Field(default=0.0, ge=0, le=2)
    shear: float = Field(default=0.0, ge=0, le=2)
    translate: float = Field(default=0.0, ge=0, le=1)
    elastic: float = Field(default=0.0, ge=0, le=1)
    border: Literal["fill", "edge"] = "fill"
    brightness: float = Field(default=0.0, ge=0, le=1)
    contrast: float = Field(default=0.0, ge=0, le=1)
    saturation: float = Field(default=0.0, ge=0, le=1)
    hue: float = Field(default=0.0, ge=0, le=0.5)
    channel: float = Field(default=0.0, ge=0, le=1)
    gamma: float = Field(default=0.0, ge=0, le=2)
    grayscale: float = Field(default=0.0, ge=0, le=1)
    invert: float = Field(default=0.0, ge=0, le=1)
    lighting: float = Field(default=0.0, ge=0, le=1)
    blur: float = Field(default=0.0, ge=0, le=1)
    noise: float = Field(default=0.0, ge=0, le=1)
    cutout: float = Field(default=0.0, ge=0, le=1)
    background: float = Field(default=0.0, ge=0, le=1)

    @field_validator("crop_scale", "crop_ratio", "zoom")
    @classmethod
    def _ordered(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 < value[0] <= value[1]:
            raise ValueError(f"AugmentConfig ranges must be (low, high) with 0 < low <= high; got {value}. Swap them?")
        return value

    def box(self, height: int, width: int, u: ndarray) -> "Box":
        """The random crop of an image of this size that 40 uniform numbers decide."""
        assert self.crop_scale is not None
        return crop_box(height, width, u, self.crop_scale, self.crop_ratio)

    @property
    def moves(self) -> bool:
        """Whether any geometric operation of the second stage is on."""
        return bool(self.rotate or self.stretch or self.shear or self.translate or self.elastic) or self.zoom != (1, 1)

    @property
    def colours(self) -> bool:
        """Whether the colour matrix is on."""
        return bool(
            self.brightness
            or self.contrast
            or self.saturation
            or self.hue
            or self.channel
            or self.grayscale
            or self.invert
        )


NO_AUGMENTATION = AugmentConfig(crop_scale=None)


def augment(
    images: list[UInt8[Tensor, "3 _ _"]], keys: list[int], config: AugmentConfig, image_format: ImageFormat
) -> UInt8[Tensor, "b 3 s s"]:
    """Images of any sizes, varied as `config` says and `keys` (a 63-bit integer each) decide, at the format's side."""
    side = image_format.resolution
    if config.crop_scale is not None:
        images = random_resized_crops(images, Draws(keys), config, image_format)
    batch = torch.empty((len(images), 3, side, side), dtype=torch.uint8)  # contiguous whatever layout the images have
    if images:
        resize_images(images, image_format, batch)
    return vary(batch, keys, config, image_format)


def vary(
    batch: UInt8[Tensor, "b 3 s s"], keys: list[int], config: AugmentConfig, image_format: ImageFormat
) -> UInt8[Tensor, "b 3 s s"]:
    """The second stage: flips, and whatever else `config` asks for. Changes `batch` and returns it."""
    if config.flip:
        chosen = torch.from_numpy(Draws(keys).happens("flip", config.flip))
        batch[chosen] = batch[chosen].flip(-1)
    if config != NO_AUGMENTATION.replace(crop_scale=config.crop_scale, crop_ratio=config.crop_ratio, flip=config.flip):
        chunk = max(1, _CHUNK_PIXELS // batch.shape[-1] ** 2)
        for start in range(0, len(keys), chunk):
            part = slice(start, start + chunk)
            batch[part] = _vary(batch[part], Draws(keys[part]), config, image_format.fill)
    return batch


def resize_images(
    images: "list[UInt8[Tensor, '3 _ _']] | UInt8[Tensor, 'b 3 _ _']", image_format: ImageFormat, out: Tensor
) -> None:
    """Write each image to `out`, uint8 (b, 3, s, s), as `resize_image` makes it; squares of one size, in one tensor or
    apart, go at once: faster, equal in bits."""
    side = image_format.resolution
    _, height, width = images[0].shape
    alike = all(i.shape == images[0].shape for i in images) if isinstance(images, list) else True
    alike = alike and (height == width or image_format.resize == "squash")
    if alike and (height, width) != (side, side):
        if isinstance(images, list):  # torch's fast uint8 layout is channels last
            images = torch.stack([i.permute(1, 2, 0) for i in images]).permute(0, 3, 1, 2)
        mode = image_format.interpolation
        out.copy_(F.interpolate(images, (side, side), mode=mode, antialias=True, align_corners=False))
    elif isinstance(images, Tensor) and (height, width) == (side, side):
        out.copy_(images)
    else:
        torch.stack([resize_image(i, image_format) for i in images], out=out)


def random_resized_crops(
    images: list[UInt8[Tensor, "3 _ _"]], draws: Draws, config: AugmentConfig, image_format: ImageFormat
) -> list[UInt8[Tensor, "3 s s"]]:
    """A random part of each image, resized (antialiased) to the format's side, whatever its aspect."""
    cropped = []
    for image, u in zip(images, draws.uniform("crop", 40), strict=True):
        box = config.box(image.shape[1], image.shape[2], u)
        cropped.append(crop_and_resize(image, box, image_format))
    return cropped


Box = tuple[int, int, int, int]
"""(top, left, height, width) of a part of an image."""


def crop_and_resize(image: UInt8[Tensor, "3 _ _"], box: Box, image_format: ImageFormat) -> UInt8[Tensor, "3 s s"]:
    """The part of an image in `box`, resized (antialiased) to the format's side, whatever its aspect."""
    top, left, height, width = box
    side = image_format.resolution
    return scale_image(image[:, top : top + height, left : left + width], side, side, image_format.interpolation)


def crop_box(height: int, width: int, u: ndarray, scale: tuple[float, float], ratio: tuple[float, float]) -> Box:
    """The box of a random resized crop (Szegedy et al. 2015), from 40 uniform numbers.

    Up to ten tries, four numbers each: area, log aspect, place; then the largest centred part within `ratio`.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for start in range(0, 40, 4):  # the first nearly always fits
        a, r, y, x = u[start : start + 4].tolist()
        area = height * width * (scale[0] + a * (scale[1] - scale[0]))
        aspect = math.exp(low + r * (high - low))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(y * (height - h + 1)), int(x * (width - w + 1)), h, w
    w, h = width, height
    if width / height < ratio[0]:
        h = max(1, round(width / ratio[0]))
    elif width / height > ratio[1]:
        w = max(1, round(height * ratio[1]))
    return (height - h) // 2, (width - w) // 2, h, w


def _vary(
    batch: UInt8[Tensor, "b 3 s s"], draws: Draws, config: AugmentConfig, fill: tuple[int, int, int]
) -> UInt8[Tensor, "b 3 s s"]:
    """The second stage, in 0..255 floats."""
    b, _, side, _ = batch.shape
    x = batch.float()
    ground = torch.tensor(fill, dtype=torch.float32).view(1, 3, 1, 1)
    if config.background:
        x, ground = _recolour(x, draws, config.background, ground)
    if config.moves:
        grid = _grid(draws, config, side)
        if config.border == "edge":
            x = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
        else:
            x = F.grid_sample(x - ground, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + ground
    if config.blur:
        weight = draws.uniform("blur", 2, -config.blur, 1.0)
        weight = np.where(draws.happens("blurred", 0.5), weight[:, 0], 0.0)
        x = x + _per_image(weight) * (_mean_3x3(x) - x)
    if config.colours:
        x = _recoloured(x, *colour_maps(draws, config))
    if config.lighting:
        field = draws.normal("lighting", 9).reshape(b, 1, 3, 3) * config.lighting
        x = x * (1 + _smooth(field, side, "bilinear"))
    if config.noise:
        spread = _per_image(draws.uniform("noise level", 1, 0.0, 255 * config.noise)[:, 0])
        x = x + spread * torch.from_numpy(draws.coarse_normal("noise", 3 * side * side)).view(b, 3, side, side)
    out = x.round_().clamp_(0, 255).to(torch.uint8)
    if config.gamma:
        out = _gamma(out, draws.uniform("gamma", 1, -config.gamma, config.gamma)[:, 0])
    if config.cutout:
        out = _cut(out, draws, config.cutout)
    return out


def _grid(draws: Draws, config: AugmentConfig, side: int) -> Float[Tensor, "b s s 2"]:
    """Where each pixel of the result comes from, in the source's coordinates from -1 to 1."""
    angle = draws.uniform("rotate", 1, -config.rotate, config.rotate)[:, 0] * math.pi / 180
    zoom = np.exp(draws.uniform("zoom", 1, math.log(config.zoom[0]), math.log(config.zoom[1]))[:, 0])
    stretch = np.exp(draws.uniform("stretch", 1, -config.stretch, config.stretch)[:, 0] / 2)
    shear = draws.uniform("shear", 1, -config.shear, config.shear)[:, 0]
    shift = draws.uniform("translate", 2, -2 * config.translate, 2 * config.translate)
    cos, sin, in_x, in_y = np.cos(angle), np.sin(angle), 1 / (zoom * stretch), stretch / zoom
    rows = [(cos * in_x, (shear - sin) * in_x, shift[:, 0]), (sin * in_y, cos * in_y, shift[:, 1])]
    at = (torch.arange(side, dtype=torch.float32) * 2 + 1) / side - 1
    grid = torch.empty((len(draws), side, side, 2))
    for axis, (by_x, by_y, offset) in enumerate(rows):  # product and sum apart: no fused rounding, alone or in a batch
        across = _per_image(by_x)[:, 0] * at
        down = _per_image(by_y)[:, 0] * at[:, None] + _per_image(offset)[:, 0]
        grid[..., axis] = across + down
    if config.elastic:
        field = draws.normal("elastic", 32).reshape(-1, 2, 4, 4) * config.elastic
        grid = grid + _smooth(field, side, "bicubic").permute(0, 2, 3, 1)
    return grid


def colour_maps(draws: Draws, config: AugmentConfig) -> tuple[ndarray, ndarray]:
    """One affine map of colours an image: (b, 3, 3) matrices and (b, 3) offsets for pixels in 0..255.

    Hue turns colours around the grey axis, saturation mixes with luma (Rec. 601), contrast pulls from mid-grey.
    """
    b = len(draws)
    eye, grey = np.eye(3), np.tile(np.array(_LUMA), (3, 1))
    mean = np.full((3, 3), 1 / 3)
    turn = np.array([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    angle = draws.uniform("hue", 1, -config.hue, config.hue)[:, :, None] * 2 * math.pi
    hue = np.cos(angle) * eye + (1 - np.cos(angle)) * mean + np.sin(angle) * turn  # Rodrigues
    colourful = draws.uniform("saturation", 1, 1 - config.saturation, 1 + config.saturation)[:, 0]
    colourful = np.where(draws.happens("grayscale", config.grayscale), 0.0, colourful)[:, None, None]
    saturation = colourful * eye + (1 - colourful) * grey
    contrast = draws.uniform("contrast", 1, 1 - config.contrast, 1 + config.contrast)
    gains = draws.uniform("channel", 3, 1 - config.channel, 1 + config.channel)
    matrix = (gains * contrast)[:, :, None] * (saturation @ hue)
    offset = draws.uniform("brightness", 1, -config.brightness, config.brightness) + (1 - contrast) * 0.5
    offset = np.broadcast_to(offset, (b, 3))
    inverted = draws.happens("invert", config.invert)
    matrix = np.where(inverted[:, None, None], -matrix, matrix)
    offset = np.where(inverted[:, None], 1 - offset, offset)
    return matrix, offset * 255


def _recoloured(x: Float[Tensor, "b 3 s s"], matrix: ndarray, offset: ndarray) -> Float[Tensor, "b 3 s s"]:
    m, o = torch.from_numpy(matrix.astype(np.float32)), torch.from_numpy(offset.astype(np.float32))
    out = torch.empty_like(x)
    for c in range(3):  # spelled out: a matrix product may round otherwise for another number of images
        plane = x[:, 0] * m[:, c, 0, None, None]
        plane += x[:, 1] * m[:, c, 1, None, None]
        plane += x[:, 2] * m[:, c, 2, None, None]
        torch.add(plane, o[:, c, None, None], out=out[:, c])
    return out


def _recolour(
    x: Float[Tensor, "b 3 s s"], draws: Draws, probability: float, fill: Tensor
) -> tuple[Float[Tensor, "b 3 s s"], Tensor]:
    """Pixels like `fill` take a random colour, by how near they are; and the ground colour of each image."""
    chosen = _per_image(draws.happens("background", probability).astype(np.float64))
    colour = torch.from_numpy(draws.uniform("background colour", 3, 0.0, 255.0).astype(np.float32))[:, :, None, None]
    near = (1 - (x - fill).abs().amax(1, keepdim=True) / 16).clamp_(min=0)  # JPEG leaves a white ground uneven
    ground = fill + chosen * (colour - fill)
    return x + near * (ground - fill), ground


def _mean_3x3(x: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b 3 s s"]:
    """The mean of each pixel and its neighbours; the edge is repeated."""
    p = F.pad(x, (1, 1, 1, 1), mode="replicate")
    p = p[..., :-2, :] + p[..., 1:-1, :] + p[..., 2:, :]
    return (p[..., :-2] + p[..., 1:-1] + p[..., 2:]) * (1 / 9)


def _smooth(field: ndarray, side: int, mode: str) -> Float[Tensor, "b c s s"]:
    coarse = torch.from_numpy(field.astype(np.float32))
    return F.interpolate(coarse, size=(side, side), mode=mode, align_corners=True)


def _gamma(batch: UInt8[Tensor, "b 3 s s"], log_gamma: ndarray) -> UInt8[Tensor, "b 3 s s"]:
    levels = np.arange(256) / 255
    tables = np.rint(levels[None] ** np.exp(log_gamma)[:, None] * 255).astype(np.uint8)
    looked_up = [p.tobytes().translate(t.tobytes()) for t, p in zip(tables, batch.numpy(), strict=True)]
    return torch.from_numpy(np.frombuffer(bytearray(b"".join(looked_up)), np.uint8)).view(batch.shape)


def _cut(batch: UInt8[Tensor, "b 3 s s"], draws: Draws, probability: float) -> UInt8[Tensor, "b 3 s s"]:
    """A rectangle of 15 to 40 % of each side, painted one random colour."""
    side = batch.shape[-1]
    place, colour = draws.uniform("cutout", 4), draws.bytes("cutout colour", 3)
    for i in np.flatnonzero(draws.happens("cut", probability)):
        height, width = (np.rint((0.15 + 0.25 * place[i, :2]) * side)).astype(int)
        top, left = int(place[i, 2] * (side - height + 1)), int(place[i, 3] * (side - width + 1))
        patch = torch.from_numpy(colour[i].copy())[:, None, None]
        batch[i, :, top : top + height, left : left + width] = patch
    return batch


def _per_image(values: ndarray) -> Float[Tensor, "b 1 1 1"]:
    return torch.from_numpy(values.astype(np.float32)).view(-1, 1, 1, 1)
