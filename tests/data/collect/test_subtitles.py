"""Frames with the words that are said then, out of a video that the test makes; every cue is kept or named."""

from pathlib import Path
from typing import Any

import pytest

from diptych.core.record import Record
from diptych.data.collect.collector import collector
from diptych.data.decode import decode_image
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.source import Reject
from tests.data.collect.tiny_video import colour_of, mp4

pytest.importorskip("av")

SRT = """1
00:00:00,000 --> 00:00:00,600
A red picture

2
00:00:00,600 --> 00:00:01,000
is shown.

3
00:00:02,200 --> 00:00:02,800
ANNA: Now it is blue.

4
00:00:03,000 --> 00:00:04,000
♪ la la la ♪

5
00:00:05,000 --> 00:00:04,000
Time runs backwards here.

6
00:00:09,000 --> 00:00:09,900
Nothing is left to see.

7
00:00:05,100 --> 00:00:05,500
Oh.
"""


def read(path: Path, **settings: Any) -> dict[str, Record | Reject]:
    return {r.key: r for r in collector("subtitles", str(path), **settings).records()}


def reasons(found: dict[str, Record | Reject]) -> dict[str, str]:
    assert all(r.message.endswith(".") and r.where for r in found.values() if isinstance(r, Reject))
    return {k: r.reason for k, r in found.items() if isinstance(r, Reject)}


def test_frames_with_words(tmp_path: Path) -> None:
    mp4(tmp_path / "film.mp4")
    (tmp_path / "film.en.srt").write_text(SRT)
    found = read(tmp_path, val_videos=0, licence="CC-BY-4.0")
    records = {k: r for k, r in found.items() if isinstance(r, Record)}
    assert {k: r.segments[1].texts for k, r in records.items()} == {
        "film.en.srt/000001": ("A red picture is shown.",),
        "film.en.srt/000003": ("Now it is blue.",),
    }
    pixels = [decode_image(r.segments[0].data).permute(1, 2, 0).numpy() for r in records.values()]
    assert [colour_of(p) for p in pixels] == [0, 2]
    assert records["film.en.srt/000003"].meta == {
        "start": 2.2,
        "end": 2.8,
        "frame_time": 2.5,
        "split": "train",
        "speaker": "ANNA",
        "collected": {
            "collector": "subtitles",
            "rule": "frame",
            "origin": str(tmp_path / "film.mp4"),
            "place": "2.200-2.800 s",
            "licence": "CC-BY-4.0",
        },
    }
    assert reasons(found) == {
        "film.en.srt/000005": "time_backwards",
        "film.en.srt/000004": "no_words",
        "film.en.srt/000007": "too_few_words",
        "film.en.srt/000006": "past_the_end",
    }
    single = read(tmp_path, merge="none", min_words=1, speakers=True)
    assert len([r for r in single.values() if isinstance(r, Record)]) == 4


def test_hostile_files_have_a_reason(tmp_path: Path) -> None:
    good = "1\n00:00:00,000 --> 00:00:01,000\nSome words to say.\n"
    mp4(tmp_path / "film.mp4", seconds=1)
    for name in ("binary", "latin", "empty", "many", "broken"):
        (tmp_path / f"{name}.mp4").write_bytes(b"\0\0\0\x20ftypisom" + b"\xff" * 300)
    (tmp_path / "binary.srt").write_bytes(good.encode() + b"\0\1\2")
    (tmp_path / "latin.srt").write_bytes(good.encode() + b"\xe9")
    (tmp_path / "empty.srt").write_text("")
    (tmp_path / "many.srt").write_text(good * 5)
    (tmp_path / "broken.srt").write_text(good)
    (tmp_path / "lonely.vtt").write_text("WEBVTT\n\n" + good)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/link.srt").write_text(good)
    (tmp_path / "outside/link.mp4").symlink_to(tmp_path / "film.mp4")
    found = read(tmp_path, max_cues=2)
    got = reasons(found)
    assert got["many.srt/000003"] == "too_many_cues"
    assert {k: v for k, v in got.items() if not k.startswith("many")} == {
        "binary.srt": "not_text",
        "latin.srt": "bad_text",
        "empty.srt": "no_cues",
        "broken.srt/000001": "broken_video",
        "lonely.vtt": "no_video",
        "outside/link.srt": "no_video",
    }


def test_packed_every_cue_is_kept_or_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    mp4(tmp_path / "in/film.mp4")
    (tmp_path / "in/film.srt").write_text(SRT)
    report = pack(collector("subtitles", str(tmp_path / "in")), tmp_path / "out", PackConfig(jobs=1, vocab_size=300))
    assert (report.seen, report.kept) == (6, 2)
