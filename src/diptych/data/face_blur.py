"""Faces made unrecognisable in the pixels that are stored: those that a table names, and those that a detector finds.

Each box is grown by a margin and replaced, wholly, by a Gaussian blur of the picture; no other pixel changes. Margin
and width of the Gaussian are shares of the face's own longer side, both 0.1 as in the face-blurred ImageNet (Yang et
al., 2022, arXiv:2103.06191), whose rule img2dataset took over for DataComp. Theirs differs in two ways that leave faces
unblurred: the largest face's width is used for all, and the blur is faded in by a mask that is blurred too, so that a
small face beside a large one keeps most of itself; and a grown box that reaches over the left or upper edge is lost.
"""

from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Float64, UInt8
from numpy import ndarray
from pydantic import Field
from torch import Tensor

from diptych.core.config import Config
from diptych.data.face_boxes import FIELD, FaceBox, boxes_in
from diptych.data.face_detector import LEAST_SCORE, SIDE, find_faces

REACH = 4.0
"""Standard deviations after which the Gaussian is cut off, as OpenCV's callers do; what is cut is 6e-5 of it."""
STRIP = 1 << 22
"""Values that are blurred at once."""
TIE = 1e-3
"""Halves of a grey level are rounded up though the sum before them may fall short: the same bytes on any machine."""


class FaceBlurConfig(Config):
    """Which faces are blurred before a picture is stored. Only pictures with faces change. Their meta then says
    `faces_blurred` (how many), `face_bboxes` (where) and `original_sha256` (the hash of what came).

    blur         "boxes": those in the record's meta (of its first picture); "detect": those, and those that a detector
                 finds in every picture
    field        where in the meta: [[left, top, right, bottom], ...] in shares of the upright picture's sides
    without      what becomes of a record whose meta says nothing, where `blur` is "boxes"
    margin       by how much of its longer side a box grows on each side
    strength     standard deviation of the Gaussian as a share of the box's longer side
    model        the detector: path of a YuNet model (.onnx) for OpenCV; "": OpenCV's own Haar cascade, which misses
                 whoever does not look into the camera
    least_score  YuNet's, of a face;  side: the longer side at which faces are looked for, in pixels
    """

    blur: Literal["none", "boxes", "detect"] = "none"
    field: str = FIELD
    without: Literal["keep", "reject"] = "keep"
    margin: Annotated[float, Field(ge=0, le=1)] = 0.1
    strength: Annotated[float, Field(gt=0, le=1)] = 0.1
    model: str = ""
    least_score: Annotated[float, Field(gt=0, lt=1)] = LEAST_SCORE
    side: Annotated[int, Field(ge=64, le=4096)] = SIDE


def faces_of(image: UInt8[Tensor, "3 h w"], meta: dict[str, Any], config: FaceBlurConfig) -> tuple[FaceBox, ...] | None:
    """The faces of a picture that are to be blurred; None: only its meta may tell, and it says nothing.

    Raises BadBoxes for a meta that cannot be meant, DataError where the detector is missing.
    """
    told = boxes_in(meta, config.field)
    if config.blur == "boxes":
        return told
    return (*(told or ()), *find_faces(image, config.model, config.least_score, config.side))


def blur_faces(
    image: UInt8[Tensor, "3 h w"], faces: tuple[FaceBox, ...], margin: float = 0.1, strength: float = 0.1
) -> UInt8[Tensor, "3 h w"]:
    """A copy of `image` whose faces are blurred. Where boxes overlap, the larger one's blur stays; all are blurs of the
    picture as it came. Beyond its edges the picture is mirrored."""
    height, width = image.shape[1:]
    pixels = image.numpy()
    blurred = np.array(pixels.transpose(1, 2, 0)).transpose(2, 0, 1)  # a copy, channels last in memory as before
    for face in sorted(faces, key=lambda f: max((f.right - f.left) * width, (f.bottom - f.top) * height)):
        longer = max((face.right - face.left) * width, (face.bottom - face.top) * height, 1.0)
        grow, sigma = margin * longer, strength * longer
        rows = _span(face.top * height - grow, face.bottom * height + grow, height)
        columns = _span(face.left * width - grow, face.right * width + grow, width)
        blurred[:, rows.start : rows.stop, columns.start : columns.stop] = _blurred(pixels, rows, columns, sigma)
    return torch.from_numpy(blurred)


def _span(low: float, high: float, size: int) -> range:
    """The pixels that an interval touches."""
    return range(max(0, int(np.floor(low))), min(size, int(np.ceil(high))))


def _blurred(pixels: ndarray, rows: range, columns: range, sigma: float) -> UInt8[ndarray, "3 h w"]:
    """A part of (3, H, W) `pixels`, blurred."""
    reach = int(np.ceil(REACH * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    down, across = (
        _mirrored(np.arange(span.start - reach, span.stop + reach), size)
        for span, size in ((rows, pixels.shape[1]), (columns, pixels.shape[2]))
    )
    found = np.empty((3, len(rows), len(columns)), dtype=np.uint8)
    for channel in range(3):
        part = _convolved(pixels[channel][np.ix_(down, across)].astype(np.float64), kernel)
        part = _convolved(np.ascontiguousarray(part.T), kernel).T
        found[channel] = np.floor(np.clip(part, 0, 255) + (0.5 + TIE))
    return found


def _mirrored(places: ndarray, size: int) -> ndarray:
    """Places beyond an edge as those inside that they mirror; the edge itself is not repeated."""
    period = max(2 * (size - 1), 1)
    folded = np.abs(places) % period
    return np.minimum(folded, period - folded) if size > 1 else np.zeros_like(places)


def _convolved(lines: Float64[ndarray, "n l"], kernel: Float64[ndarray, " k"]) -> Float64[ndarray, "n m"]:
    """Each line with the kernel, where this lies within: m = l - k + 1. By Fourier transforms, whose cost does not grow
    with the kernel; the values are those of the sum to 1e-12."""
    length, beyond = lines.shape[1], len(kernel) - 1
    spectrum = np.fft.rfft(kernel, length)
    found = np.empty((len(lines), length - beyond))
    step = max(1, STRIP // length)
    for start in range(0, len(lines), step):
        some = np.fft.irfft(np.fft.rfft(lines[start : start + step], axis=1) * spectrum, length, axis=1)
        found[start : start + step] = some[:, beyond:]
    return found
