"""Single frames of a video at given times. ffmpeg decodes them in a process of its own, with limits
(`data/parser_process.py`): a video that brings it down costs its cues, by name, and not the run."""

import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diptych.core.errors import DataError
from diptych.data.parser_process import Answer, ParserFailed, ParserProcess

FORMATS = {".mp4": "mov", ".m4v": "mov", ".mov": "mov", ".webm": "matroska", ".mkv": "matroska"}
"""The endings of videos that are read, and the demuxer that is to read them."""
PARSER = "diptych.data.video_parser:frames"
SECONDS = 300.0
"""Of processor time for a frame: all since the last keyframe are decoded for it, of large videos ten a second."""
MEMORY_GB = 6.0


class BadVideo(DataError):
    """A video, or a moment of it, that cannot be had; `reason` says why in a word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Frame(NamedTuple):
    """(h, w, 3) uint8 RGB pixels and the time in seconds at which the frame stands."""

    pixels: np.ndarray
    time: float


def frames_at(
    path: Path, times: Sequence[float], max_side: int = 1024, max_pixels: int = 50_000_000
) -> Iterator[Frame | BadVideo]:
    """For each of `times` (seconds, rising) the frame that is shown then, or why there is none. Raises BadVideo where
    the file is no video, or ends the process that reads it (parser_crashed, parser_timed_out, parser_out_of_memory);
    DataError where PyAV is missing."""
    require_av()
    with open(path, "rb") as file:
        head = file.read(12)
    if head[4:8] not in (b"ftyp", b"moov", b"mdat", b"free", b"wide") and head[:4] != b"\x1aE\xdf\xa3":
        raise BadVideo("not_a_video", f"a video must be mp4, mov, mkv or webm; {path.name} is not.")
    about = {
        "path": os.fsencode(path).hex(),
        "format": FORMATS[path.suffix.lower()],
        "times": [float(t) for t in times],
        "max_side": max_side,
        "max_pixels": max_pixels,
    }
    try:
        with ParserProcess(PARSER, SECONDS, MEMORY_GB) as parser:
            for answer in parser.ask(about):
                yield _frame(answer)
    except ParserFailed as error:
        raise BadVideo(error.reason, error.message) from None


def _frame(answer: Answer) -> Frame | BadVideo:
    """What the parser says, taken for what it must be. Raises BadVideo where it is about the whole file."""
    said, pixels = answer.said, answer.array
    if "refused" in said:
        bad = BadVideo(str(said["refused"]), str(said.get("message")))
        if said.get("all"):
            raise bad
        return bad
    time = said.get("time")
    if pixels is None or pixels.ndim != 3 or pixels.shape[2] != 3 or not isinstance(time, int | float):
        raise ParserFailed("parser_crashed", "a parser must give frames; it gave something else. Leave the file out.")
    return Frame(pixels, float(time))


def require_av() -> None:
    """Raises DataError that names the extra where PyAV is missing. It is loaded in the process that reads only."""
    if importlib.util.find_spec("av") is None:
        raise DataError(
            "a video must be read by PyAV; got a Python without it. Install it: pip install 'diptych[video]'."
        )
