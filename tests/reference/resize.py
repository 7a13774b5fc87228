"""CLIP's preprocessing geometry in Pillow, as torchvision words it: the plain twin of `decode.resize_image`."""

import numpy as np
from PIL import Image


def crop(image: Image.Image, side: int, resample: Image.Resampling) -> np.ndarray:
    """Short side to `side`, long side truncated to a whole number, centre crop with Python's rounding."""
    width, height = image.size
    size = (side, int(side * height / width)) if width <= height else (int(side * width / height), side)
    image = image.resize(size, resample)
    left, top = round((size[0] - side) / 2.0), round((size[1] - side) / 2.0)
    return np.asarray(image.crop((left, top, left + side, top + side)))


def squash(image: Image.Image, side: int, resample: Image.Resampling) -> np.ndarray:
    """Both sides to `side`."""
    return np.asarray(image.resize((side, side), resample))


def pad(image: Image.Image, side: int, resample: Image.Resampling, fill: tuple[int, int, int]) -> np.ndarray:
    """Long side to `side`, centred on `fill`."""
    scale = side / max(image.size)
    small = image.resize((round(image.width * scale), round(image.height * scale)), resample)
    canvas = Image.new("RGB", (side, side), fill)
    canvas.paste(small, ((side - small.width) // 2, (side - small.height) // 2))
    return np.asarray(canvas)
