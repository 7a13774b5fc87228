"""Blurred faces, pixel by pixel: a plain reading of what `diptych.data.face_blur` says."""

import math
from collections.abc import Sequence

import numpy as np

Box = tuple[float, float, float, float]


def mirrored(place: int, size: int) -> int:
    """A place beyond an edge as the one inside that it mirrors, the edge itself not repeated."""
    while not 0 <= place < size:
        place = -place if place < 0 else 2 * (size - 1) - place
        if size == 1:
            return 0
    return place


def blur_faces(pixels: np.ndarray, boxes: Sequence[Box], margin: float, strength: float) -> np.ndarray:
    """(h, w, 3) uint8 with each box (left, top, right, bottom in shares) grown and blurred."""
    height, width, _ = pixels.shape
    blurred = pixels.copy()
    sides = [max((b[2] - b[0]) * width, (b[3] - b[1]) * height) for b in boxes]
    for longer, box in sorted(zip(sides, boxes, strict=True), key=lambda x: x[0]):
        longer = max(longer, 1.0)
        sigma, grow = strength * longer, margin * longer
        reach = math.ceil(4 * sigma)
        weights = [math.exp(-(d * d) / (2 * sigma * sigma)) for d in range(-reach, reach + 1)]
        whole = sum(weights) ** 2
        for y in range(max(0, math.floor(box[1] * height - grow)), min(height, math.ceil(box[3] * height + grow))):
            for x in range(max(0, math.floor(box[0] * width - grow)), min(width, math.ceil(box[2] * width + grow))):
                total = np.zeros(3)
                for dy, wy in enumerate(weights, -reach):
                    row = pixels[mirrored(y + dy, height)]
                    for dx, wx in enumerate(weights, -reach):
                        total += wy * wx * row[mirrored(x + dx, width)]
                blurred[y, x] = np.floor(total / whole + 0.501)
    return blurred
