"""Faces in pixels, by OpenCV: its Haar cascade, which comes with the package, or a YuNet model that one brings.

    Viola and Jones, 2001, Rapid object detection using a boosted cascade of simple features
    Wu, Peng and Yu, 2023, YuNet: a tiny millisecond-level face detector

Nothing is downloaded. A cascade finds upright faces that look into the camera, and now and then a face where none is;
YuNet (face_detection_yunet_*.onnx, of OpenCV's model zoo) finds turned and small ones too. Neither finds all.
"""

import threading
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from diptych.core.errors import ConfigError, DataError
from diptych.data.decode import resize_long_side
from diptych.data.face_boxes import MOST, FaceBox

LEAST_SCORE = 0.6
SIDE = 640
CASCADE = "haarcascade_frontalface_default.xml"
SMALLEST = 24
"""The shorter side that the cascade was trained with, in pixels."""
_MINE = threading.local()


def find_faces(
    image: UInt8[Tensor, "3 h w"], model: str = "", least_score: float = LEAST_SCORE, side: int = SIDE
) -> tuple[FaceBox, ...]:
    """The faces of an upright RGB picture, at most `MOST`, from the top of it down. `model`: a YuNet .onnx, with faces
    of `least_score` and more; "": the cascade. Looked for at a longer side of `side` pixels at most.

    Errors: DataError where OpenCV is missing or cannot, ConfigError where the model cannot be read.
    """
    cv2 = require_opencv()
    small = resize_long_side(image, side)
    height, width = small.shape[1:]
    detector = _detector(model)
    pixels = np.ascontiguousarray(small.permute(1, 2, 0).numpy())
    try:
        if model:
            detector.setInputSize((width, height))
            detector.setScoreThreshold(least_score)
            found = detector.detect(pixels[:, :, ::-1].copy())[1]
        else:
            found = detector.detectMultiScale(
                cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), 1.1, 5, minSize=(SMALLEST, SMALLEST)
            )
    except cv2.error as error:
        raise DataError(
            f"faces must be found by OpenCV; got {str(error).strip()[:200]}. Set faces.blur=boxes."
        ) from None
    numbers = np.asarray(() if found is None else found, dtype=np.float64).reshape(-1, 15 if model else 4)
    faces = list[FaceBox]()
    for x, y, w, h in numbers[:MOST, :4].tolist():
        sides = (x / width, y / height, (x + w) / width, (y + h) / height)
        box = FaceBox(*(round(min(max(v, 0.0), 1.0), 4) for v in sides))
        if box.area > 0:
            faces.append(box)
    return tuple(sorted(faces, key=lambda f: (f.top, f.left, f)))


def check_detector(model: str = "") -> None:
    """Raise what `find_faces` would, before a long work begins: DataError or ConfigError."""
    _detector(model)


def require_opencv() -> Any:
    """OpenCV. Raises DataError that names the extra where it is missing."""
    try:
        import cv2
    except ImportError:
        raise DataError(
            "faces must be found by OpenCV; got a Python without it. Install it: pip install 'diptych[faces]'."
        ) from None
    return cv2


def _detector(model: str) -> Any:
    """A thread's own: they keep state while they look."""
    if not hasattr(_MINE, "made"):
        _MINE.made = cache(_make)
    return _MINE.made(model)


def _make(model: str) -> Any:
    cv2 = require_opencv()
    cv2.setNumThreads(1)  # the packer has its own; and several threads find the same faces in another order
    if not model:
        path = Path(cv2.data.haarcascades) / CASCADE
        if not hasattr(cv2, "CascadeClassifier") or not path.is_file():
            raise DataError(
                f"this OpenCV ({cv2.__version__}) must bring {CASCADE}; it does not. Install opencv-python-headless<5, "
                "or name a YuNet model."
            )
        return cv2.CascadeClassifier(str(path))
    if not Path(model).is_file():
        raise ConfigError(f"a face model must be a file; got {model}, which is not there. Check the path.")
    try:
        return cv2.FaceDetectorYN.create(model, "", (320, 320), LEAST_SCORE, 0.3, 5000)
    except (cv2.error, SystemError) as error:
        raise ConfigError(
            f"a face model must be a YuNet model for OpenCV (face_detection_yunet_*.onnx); got {model} "
            f"({str(error).strip()[:120]}). Name another."
        ) from None
