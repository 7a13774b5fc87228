"""Drawn faces are found, noise holds none; what is asked of a YuNet model, and what of a file that is none."""

from typing import Any

import numpy as np
import pytest
import torch

from diptych.core.errors import ConfigError, DataError
from diptych.data import face_detector
from diptych.data.face_boxes import FaceBox
from diptych.data.face_detector import check_detector, find_faces
from tests.data.faces import faces

cv2 = pytest.importorskip("cv2")


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(array)).permute(2, 0, 1)


def test_drawn_faces_are_found_at_any_size() -> None:
    found = find_faces(tensor(faces((280, 170, 160), (80, 80, 90))))
    assert len(found) == 2
    for box, (x, y) in zip(found, [(80, 80), (280, 170)], strict=True):
        assert box.left < x / 400 < box.right
        assert box.top < y / 300 < box.bottom
    large = find_faces(tensor(faces((1400, 850, 800), (400, 400, 450), height=1500, width=2000)))
    assert np.allclose(np.array(large), np.array(found), atol=0.05)
    assert find_faces(tensor(faces((200, 150, 200)))) == find_faces(tensor(faces((200, 150, 200))))


def test_noise_and_tiny_pictures_hold_none() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    assert find_faces(tensor(noise)) == ()
    assert find_faces(tensor(noise[:1, :2])) == ()


class FakeYuNet:
    """Says two faces, as OpenCV's does: x, y, w, h, ten numbers of landmarks, the score."""

    def __init__(self, *given: Any) -> None:
        self.asked = [given]

    def setInputSize(self, size: tuple[int, int]) -> None:
        self.asked.append(size)

    def setScoreThreshold(self, least: float) -> None:
        self.asked.append(least)

    def detect(self, pixels: np.ndarray) -> tuple[int, np.ndarray | None]:
        self.asked.append(pixels[0, 0].tolist())
        if pixels.shape[0] < 50:
            return 0, None
        return 1, np.array([[-5, 10, 25, 40, *[0] * 10, 0.9], [50, 5, 10, 10, *[0] * 10, 0.8]], dtype=np.float32)


def test_a_model_is_asked_in_its_own_way(monkeypatch, tmp_path) -> None:
    made: list[FakeYuNet] = []

    def create(*given: Any) -> FakeYuNet:
        made.append(FakeYuNet(*given))
        return made[-1]

    monkeypatch.setattr(cv2, "FaceDetectorYN", type("Maker", (), {"create": staticmethod(create)}))
    (tmp_path / "yunet.onnx").write_bytes(b"weights")
    picture = np.zeros((50, 100, 3), dtype=np.uint8)
    picture[0, 0] = (1, 2, 3)
    path = str(tmp_path / "yunet.onnx")
    found = find_faces(tensor(picture), path, least_score=0.75, side=640)
    assert found == (FaceBox(0.5, 0.1, 0.6, 0.3), FaceBox(0.0, 0.2, 0.2, 1.0))
    assert made[0].asked[0][0] == path
    assert made[0].asked[1:] == [(100, 50), 0.75, [3, 2, 1]]  # blue first
    assert find_faces(tensor(picture[:20]), path) == ()
    assert len(made) == 1  # a thread makes it once


def test_what_cannot_find_faces_says_so(monkeypatch, tmp_path) -> None:
    with pytest.raises(ConfigError, match="a face model must be a file"):
        check_detector(str(tmp_path / "none.onnx"))
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(ConfigError, match="a face model must be a YuNet model for OpenCV"):
        check_detector(str(tmp_path / "bad.onnx"))
    monkeypatch.delattr(cv2, "CascadeClassifier")
    with pytest.raises(DataError, match="or name a YuNet model"):
        face_detector._make("")
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(DataError, match=r"pip install 'diptych\[faces\]'"):
        find_faces(tensor(faces()))
