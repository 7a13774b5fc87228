"""Perceptual hashes and miniatures of one image at a time, and all pairs of images in a loop."""

import numpy as np
from scipy.fft import dctn


def perceptual_hash(image: np.ndarray) -> np.ndarray:
    """(3, 32, 32) to 64 bits: low frequencies above their median."""
    grey = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
    low = dctn(grey.astype(float), norm="ortho")[:8, :8]
    return (low > np.median(low)).ravel()


def miniature(image: np.ndarray) -> np.ndarray:
    """(3, 32, 32) to (3, 16, 16): means of 2 x 2 pixels."""
    out = np.zeros((3, 16, 16))
    for y in range(16):
        for x in range(16):
            out[:, y, x] = image[:, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].astype(float).mean((1, 2))
    return np.rint(out)


def apart(a: np.ndarray, b: np.ndarray, tolerance: float) -> float:
    """How far two miniatures are apart in grey levels; infinite if they are not near."""
    means = [m.mean((1, 2), keepdims=True) for m in (a, b)]
    x, y = a - means[0], b - means[1]
    distance = np.sqrt(((x - y) ** 2).mean())
    contrast = min(np.sqrt((x**2).mean()), np.sqrt((y**2).mean()))
    near = distance <= max(1.0, tolerance * contrast) and np.abs(means[0] - means[1]).max() <= 32
    return float(distance) if near else np.inf


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
