"""Perceptual hashes and miniatures of one image at a time, and all pairs of images in a loop."""

import hashlib

import numpy as np
from scipy.fft import dctn


def perceptual_hash(image: np.ndarray) -> np.ndarray:
    """(3, 32, 32) to 64 bits: on which side of 64 random planes the weighted spectrum lies."""
    grey = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
    planes = [(grey, 1.0), (image[0] - grey, 0.5), (image[2] - grey, 0.5)]
    drawn = hashlib.shake_128(b"diptych perceptual hash").digest(768 * 8)
    sums, place = np.zeros(64), 0
    for number, (plane, share) in enumerate(planes):
        spectrum = dctn(plane.astype(float), norm="ortho")[:16, :16] * share
        for y in range(16):
            for x in range(16):
                weight = np.hypot(y, x) if y or x else float(number > 0)
                signs = [1 if byte >> (7 - k) & 1 else -1 for byte in drawn[place : place + 8] for k in range(8)]
                sums += np.array(signs) * weight * spectrum[y, x]
                place += 8
    return sums > 0


def miniature(image: np.ndarray) -> np.ndarray:
    """(3, 32, 32) to (3, 16, 16): means of 2 x 2 pixels."""
    out = np.zeros((3, 16, 16))
    for y in range(16):
        for x in range(16):
            out[:, y, x] = image[:, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].astype(float).mean((1, 2))
    return np.rint(out)


def apart(a: np.ndarray, b: np.ndarray, tolerance: float) -> float:
    """How far two miniatures are apart in grey levels; infinite if they are not near. The one with more contrast may
    be weakened, to 0.7 of it, to be like the other."""
    if a.var((1, 2)).mean() < b.var((1, 2)).mean():
        a, b = b, a
    means = [m.mean((1, 2), keepdims=True) for m in (a, b)]
    x, y = a - means[0], b - means[1]
    gain = float(np.clip((x * y).sum() / (x * x).sum(), 0.7, 1)) if x.any() else 1.0
    distance = np.sqrt(((y - gain * x) ** 2).mean())
    near = distance <= max(1.0, tolerance * np.sqrt((y**2).mean()))
    shift = min(np.abs(means[1] - share * means[0]).max() for share in (1.0, gain))
    return float(distance) if near and shift <= 32 else np.inf


def nearest(held: list[np.ndarray], train: list[np.ndarray], most_bits: int, tolerance: float) -> list[int]:
    """Of each held-out image (3, 32, 32) the training image that is nearest, or -1."""
    found = []
    for a in held:
        distances = [
            apart(miniature(a), miniature(b), tolerance)
            if (perceptual_hash(a) != perceptual_hash(b)).sum() <= most_bits
            else np.inf
            for b in train
        ]
        found.append(int(np.argmin(distances)) if np.isfinite(min(distances)) else -1)
    return found
