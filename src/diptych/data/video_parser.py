"""Frames of a video, by PyAV, which has ffmpeg's decoders inside: runs in a process of its own (`parser_process`).

The file is opened by us and its format is named by us: ffmpeg is never given a path, since what calls itself a film may
be a playlist that names other files and addresses.
"""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from diptych.data.parser_process import Answers

MAX_DECODED = 3000
"""Frames decoded for one that is wanted: more than lie between the keyframes of any real film."""
NEAR = 5.0
"""Seconds ahead that are decoded through rather than jumped over."""


class _Refused(Exception):
    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def frames(about: dict[str, Any], data: bytes) -> Answers:
    """For each of `times` (seconds, rising) {time} with the pixels of the frame that is shown then, or {refused,
    message}; of a file that is no video one {refused, message, all: true}.

    about   path (its bytes in hexadecimal, since a name may be no Unicode), format (the demuxer), times, max_side,
            max_pixels
    """
    import av

    path = os.fsdecode(bytes.fromhex(about["path"]))
    with open(path, "rb") as file:
        try:
            container = av.open(file, format=about["format"])
        except (av.error.FFmpegError, ValueError) as error:
            yield _whole("broken_video", f"a video must be whole; got {error} for {os.path.basename(path)}.")
            return
        with container:
            if not container.streams.video:
                yield _whole("no_picture", f"a video must have a picture; {os.path.basename(path)} has none.")
                return
            try:
                reader = _Reader(av, container, about["max_side"], about["max_pixels"])
            except _Refused as error:
                yield _whole(error.reason, str(error))
                return
            for time in about["times"]:
                try:
                    yield reader.at(time)
                except _Refused as error:
                    yield {"refused": error.reason, "message": str(error)}, None
                except (av.error.FFmpegError, ValueError) as error:
                    said = f"a frame must be decodable; got {error} at {time:.2f} s."
                    yield {"refused": "broken_video", "message": said}, None


def _whole(reason: str, message: str) -> tuple[dict[str, Any], None]:
    return {"refused": reason, "message": message, "all": True}, None


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
            raise _Refused(
                "too_many_pixels", f"a frame must have at most {self.max_pixels:,} pixels; got {width}x{height}."
            )

    def at(self, time: float) -> tuple[dict[str, Any], np.ndarray]:
        """The frame that is shown at `time`."""
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
            raise _Refused(
                "no_frame", f"a video must have keyframes; none led to {time:.2f} s in {MAX_DECODED} frames."
            )
        shown = self.now or self.ahead
        if shown is None or (self.ahead is None and time - self._time(shown) > 1.0):
            raise _Refused("past_the_end", f"a cue must lie within the video; it ends before {time:.2f} s.")
        return {"time": self._time(shown)}, self._pixels(shown)

    def _time(self, frame: Any) -> float:
        return float(frame.time or 0.0) - self.origin

    def _pixels(self, frame: Any) -> np.ndarray:
        self._check(frame.width, frame.height)
        scale = min(1.0, self.max_side / max(frame.width, frame.height))
        wide, high = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
        found: np.ndarray = frame.to_ndarray(format="rgb24", width=wide, height=high)
        return found
