"""What is said of a video's moments."""

import os
from pathlib import Path
from typing import Any

import pytest

from diptych.data.video_parser import frames
from tests.data.collect.tiny_video import colour_of, mp4

pytest.importorskip("av")


def about(path: Path, **more: Any) -> dict[str, Any]:
    return {
        **{"path": os.fsencode(path).hex(), "format": "mov", "times": [0.5, 50.0], "max_side": 32},
        **{"max_pixels": 50_000_000, **more},
    }


def test_a_frame_or_a_reason_for_each_time(tmp_path: Path) -> None:
    (first, pixels), (late, none) = frames(about(mp4(tmp_path / "a.mp4", seconds=2)), b"")
    assert 0 <= 0.5 - first["time"] < 0.11
    assert pixels is not None
    assert (pixels.shape, colour_of(pixels)) == ((16, 32, 3), 0)
    assert (late["refused"], none) == ("past_the_end", None)


def test_what_is_no_video_is_said_of_the_whole(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x20ftypisom" + b"\xff" * 500)
    ((said, _),) = frames(about(tmp_path / "a.mp4"), b"")
    assert (said["refused"], said["all"]) == ("broken_video", True)
    ((said, _),) = frames(about(mp4(tmp_path / "b.mp4", seconds=1), max_pixels=100), b"")
    assert (said["refused"], said["all"]) == ("too_many_pixels", True)
