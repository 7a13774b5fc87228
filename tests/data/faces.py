"""A face, drawn: light skin, dark hair, eyes and brows, so that a cascade takes it for one."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter


def draw_face(picture: Image.Image, x: float, y: float, side: float) -> None:
    """Onto a grey or RGB picture, its centre at (x, y); `side` is about its height."""
    draw = ImageDraw.Draw(picture)

    def oval(left: float, top: float, right: float, bottom: float, grey: int) -> None:
        draw.ellipse([x + left * side, y + top * side, x + right * side, y + bottom * side], fill=(grey,) * 3)

    oval(-0.42, -0.58, 0.42, 0.58, 190)
    oval(-0.44, -0.62, 0.44, -0.25, 40)
    oval(-0.38, -0.42, 0.38, 0.1, 190)
    for eye in (-0.18, 0.18):
        oval(eye - 0.11, -0.12, eye + 0.11, 0.0, 60)
        oval(eye - 0.13, -0.2, eye + 0.13, -0.15, 50)
    oval(-0.04, -0.1, 0.04, 0.18, 220)
    oval(-0.07, 0.16, 0.07, 0.22, 120)
    oval(-0.17, 0.3, 0.17, 0.38, 80)


def faces(*places: tuple[float, float, float], height: int = 300, width: int = 400) -> np.ndarray:
    """(h, w, 3) uint8: a plain picture with a face at each (x, y, side)."""
    picture = Image.new("RGB", (width, height), (90, 90, 90))
    for x, y, side in places:
        draw_face(picture, x, y, side)
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(1.5)))
