"""The frame that is shown at a time, and what is no video."""

from pathlib import Path

import pytest

from diptych.data import video_frames
from diptych.data.video_frames import BadVideo, Frame, frames_at
from tests.data.collect.tiny_video import colour_of, mp4

pytest.importorskip("av")


def test_the_frame_of_each_time(tmp_path: Path) -> None:
    path = mp4(tmp_path / "a.mp4", seconds=20)
    times = [0.0, 0.55, 1.5, 2.95, 9.5, 19.9, 2.5]
    frames = list(frames_at(path, times))
    assert all(isinstance(f, Frame) for f in frames)
    assert [colour_of(f.pixels) for f in frames if isinstance(f, Frame)] == [0, 0, 1, 2, 3, 1, 2]
    assert all(0 <= t - f.time < 0.11 for t, f in zip(times, frames, strict=True) if isinstance(f, Frame))


def test_past_the_end_and_smaller(tmp_path: Path) -> None:
    path = mp4(tmp_path / "a.mp4", seconds=2)
    first, late = frames_at(path, [1.0, 50.0], max_side=32)
    assert isinstance(first, Frame)
    assert first.pixels.shape == (16, 32, 3)
    assert isinstance(late, BadVideo)
    assert late.reason == "past_the_end"


def test_what_is_no_video_has_a_reason(tmp_path: Path) -> None:
    for data, reason in (
        (b"#EXTM3U\nhttp://127.0.0.1/secret\n", "not_a_video"),
        (b"", "not_a_video"),
        (b"\0\0\0\x20ftypisom" + b"\xff" * 500, "broken_video"),
    ):
        (tmp_path / "a.mp4").write_bytes(data)
        with pytest.raises(BadVideo) as raised:
            list(frames_at(tmp_path / "a.mp4", [0.0]))
        assert raised.value.reason == reason
    with pytest.raises(BadVideo, match="at most 100 pixels"):
        list(frames_at(mp4(tmp_path / "b.mp4", seconds=1), [0.0], max_pixels=100))


@pytest.mark.parametrize("time", [3.0, 5.0])
def test_a_video_that_brings_the_decoder_down_is_named(time: float, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(video_frames, "PARSER", "tests.data.odd_parsers:fragile_video")
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x20ftypisom")
    frames = frames_at(tmp_path / "a.mp4", [1.0, 2.0, time])
    assert [type(next(frames)), type(next(frames))] == [Frame, Frame]
    with pytest.raises(BadVideo) as raised:
        next(frames)
    assert raised.value.reason == "parser_crashed"
