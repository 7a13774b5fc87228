"""An mp4 made with PyAV: a colour a second, so that a frame tells its time."""

import io
from pathlib import Path

import numpy as np
import pytest

COLOURS = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40), (40, 200, 200), (200, 40, 200)]


def mp4(path: Path, seconds: int = 6, rate: int = 10, side: int = 64) -> Path:
    """`seconds` colours, one after another, 64 by 32 pixels."""
    av = pytest.importorskip("av")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = out.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = side, side // 2, "yuv420p"
        for i in range(seconds * rate):
            pixels = np.full((side // 2, side, 3), COLOURS[i // rate % len(COLOURS)], np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode())
    path.write_bytes(buffer.getvalue())
    return path


def colour_of(pixels: np.ndarray) -> int:
    """Which of the colours these (h, w, 3) pixels are."""
    mean = pixels.reshape(-1, 3).mean(0)
    return int(np.abs(np.array(COLOURS) - mean).sum(1).argmin())
