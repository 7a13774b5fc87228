"""Single frames of a video at given times, by PyAV, which has ffmpeg's decoders inside.

The file is opened by us and its format is named by us: ffmpeg is never given a path, since what calls itself a film may
be a playlist that names other files and addresses.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diptych.core.errors import DataError

FORMATS = {".mp4": "mov", ".m4v": "mov", ".mov": "mov", ".webm": "matroska", ".mkv": "matroska"}
"""The endings of videos that are read, and the demuxer that is to read them."""
MAX_DECODED = 3000
"""Frames decoded for one that is wanted: more than lie between the keyframes of any real film."""
NEAR = 5.0
"""Seconds ahead that are decoded through rather than jumped over."""


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
    the file is no video, DataError where PyAV is missing."""
    av = require_av()
    with open(path, "rb") as file:
        head = file.read(12)
        file.seek(0)
        if head[4:8] not in (b"ftyp", b"moov", b"mdat", b"free", b"wide") and head[:4] != b"\x1aE\xdf\xa3":
            raise BadVideo("not_a_video", f"a video must be mp4, mov, mkv or webm; {path.name} is not.")
        try:
            container = av.open(file, format=FORMATS[path.suffix.lower()])
        except (av.error.FFmpegError, ValueError) as error:
            raise BadVideo("broken_video", f"a video must be whole; got {error} for {path.name}.") from None
        with container:
            if not container.streams.video:
                raise BadVideo("no_picture", f"a video must have a picture; {path.name} has none.")
            reader = _Reader(av, container, max_side, max_pixels)
            for time in times:
                try:
                    yield reader.at(time)
                except BadVideo as error:
                    yield error
                except (av.error.FFmpegError, ValueError, MemoryError) as error:
                    yield BadVideo("broken_video", f"a frame must be decodable; got {error} at {time:.2f} s.")


class _Reader:
    """Decodes forward, and jumps to a keyframe where that is shorter."""

    def __init__(self, av: Any, container: Any, max_side: int, max_pixels: int) -> None:
        self.container, self.max_side, self.max_pixels = container, max_side, max_pixels
        self.stream = container.streams.video[0]
        self.stream.thread_type = "NONE"
        self.eof = av.error.EOFError
        context = self.stream.codec_context
        self._check(context.width, context.height)
        self.base = float(self.stream.time_base or 0) or 1e-3
        self.origin = (self.stream.start_time or 0) * self.base
        self.frames: Iterator[Any] = container.decode(self.stream)
        self.now: Any = None
        self.ahead: Any = None

    def _check(self, width: int, height: int) -> None:
        if not 0 < width * height <= self.max_pixels:
            raise BadVideo(
                "too_many_pixels", f"a frame must have at most {self.max_pixels:,} pixels; got {width}x{height}."
            )

    def at(self, time: float) -> Frame:
        """The frame that is shown at `time`. Raises BadVideo."""
        reached = None if self.ahead is None else self._time(self.ahead)
        if reached is None or not time - NEAR < reached:
            self.container.seek(int((time + self.origin) / self.base), stream=self.stream)
            self.frames = self.container.decode(self.stream)
            self.now = self.ahead = None
        for _ in range(MAX_DECODED):
            if self.ahead is not None and self._time(self.ahead) > time:
                break
            self.now = self.ahead or self.now
            try:
                self.ahead = next(self.frames)
            except (StopIteration, self.eof):
                self.ahead = None
                break
        else:
            raise BadVideo(
                "no_frame", f"a video must have keyframes; none led to {time:.2f} s in {MAX_DECODED} frames."
            )
        shown = self.now or self.ahead
        if shown is None or (self.ahead is None and time - self._time(shown) > 1.0):
            raise BadVideo("past_the_end", f"a cue must lie within the video; it ends before {time:.2f} s.")
        return self._frame(shown)

    def _time(self, frame: Any) -> float:
        return float(frame.time or 0.0) - self.origin

    def _frame(self, frame: Any) -> Frame:
        self._check(frame.width, frame.height)
        scale = min(1.0, self.max_side / max(frame.width, frame.height))
        wide, high = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
        return Frame(frame.to_ndarray(format="rgb24", width=wide, height=high), self._time(frame))


def require_av() -> Any:
    """PyAV. Raises DataError that names the extra where it is missing."""
    try:
        import av
    except ImportError:
        raise DataError(
            "a video must be read by PyAV; got a Python without it. Install it: pip install 'diptych[video]'."
        ) from None
    return av
