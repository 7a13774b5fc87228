"""Videos with subtitles beside them (film.mp4 and film.srt, film.en.vtt): frames with the words that are said then.

    diptych collect subtitles films/ --out data/films

Words describe what is seen only now and then; such pairs are noisy and want curation. All frames of a video fall into
one split, since neighbours look alike.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field

from diptych.core.record import Record
from diptych.core.seeds import fold
from diptych.data.collect.collector import Collector, CollectorConfig
from diptych.data.cues import Cue, WrongCue, cleaned, parse_cues, sentences, without_overlaps
from diptych.data.decode import MAX_PIXELS, encode_jpeg
from diptych.data.files_below import files_below
from diptych.data.record_files import printable
from diptych.data.sources.source import Reject
from diptych.data.video_frames import FORMATS, BadVideo, Frame, frames_at, require_av

MAX_FILE_BYTES = 16 << 20


class SubtitlesConfig(CollectorConfig):
    """`path` is a folder of videos with .srt or .vtt files of the same name, or one such file.

    merge       "sentences": cues joined until a sentence ends (`max_gap` and `max_seconds` of it); "none": as they are
    overlaps    "cut": a cue ends where the next begins; "keep"
    music, sounds, speakers   whether lines of songs, sounds in brackets and names of speakers are kept
    moment      where in the time of the words the frame is taken: 0 their start, 1 their end
    min_words   what has fewer is rejected;  max_side: of a frame, in pixels;  encoding: of the .srt, where not UTF-8
    val_videos  the share of videos that is held out
    """

    merge: Literal["sentences", "none"] = "sentences"
    max_gap: Annotated[float, Field(ge=0)] = 1.5
    max_seconds: Annotated[float, Field(gt=0)] = 15.0
    overlaps: Literal["cut", "keep"] = "cut"
    music: bool = False
    sounds: bool = False
    speakers: bool = False
    moment: Annotated[float, Field(ge=0, le=1)] = 0.5
    min_words: Annotated[int, Field(ge=1)] = 3
    max_side: Annotated[int, Field(ge=16, le=8192)] = 1024
    max_cues: Annotated[int, Field(ge=1)] = 100_000
    encoding: str = ""
    val_videos: Annotated[float, Field(ge=0, lt=1)] = 0.02

    def build(self) -> "Subtitles":
        """The collector."""
        return Subtitles(self)


class Subtitles(Collector):
    """Records in the order of the subtitles' files and of the times in them, keyed FILE/NUMBER by the (first) cue's
    place in its file. Meta: start, end and frame_time in seconds, the speaker if told, the split."""

    config: SubtitlesConfig

    def __init__(self, config: SubtitlesConfig) -> None:
        super().__init__(config)
        self.root = Path(config.path)

    def records(self) -> Iterator[Record | Reject]:
        """Frames with words. Raises DataError where PyAV is missing or nothing is there."""
        require_av()
        for found in files_below(self.root, {".srt", ".vtt"}):
            if isinstance(found, Reject):
                yield found
                continue
            name, path = found
            key = printable(name)
            video = _video_of(path)
            text = self._text(path, key)
            if isinstance(text, Reject):
                yield text
            elif video is None:
                message = f"subtitles must have a video beside them; {path.stem} has none of {', '.join(FORMATS)}."
                yield Reject(key, message, "no_video", str(path))
            else:
                yield from self._pairs(text, video, key, path)

    def where(self, key: str) -> str:
        """The cue in the file."""
        return str(self.root / key) if self.root.is_dir() else key

    def _text(self, path: Path, key: str) -> str | Reject:
        try:
            if not path.is_file():
                return Reject(key, f"subtitles must be an ordinary file; got {path}.", "not_a_file", str(path))
            with open(path, "rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
            if len(data) > MAX_FILE_BYTES:
                message = f"subtitles must have at most {MAX_FILE_BYTES:,} bytes; got more. Split the file."
                return Reject(key, message, "too_many_bytes", str(path))
            marked = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
            text = data.decode(marked if marked == "utf-16" else self.config.encoding or marked)
        except OSError as error:
            return Reject(key, f"subtitles must be readable; got {error.strerror}.", "unreadable", str(path))
        except (UnicodeDecodeError, LookupError) as error:
            message = f"subtitles must be UTF-8; got {error}. Name their encoding, as encoding=cp1252."
            return Reject(key, message, "bad_text", str(path))
        if "\0" in text:
            return Reject(key, "subtitles must be text; got zero bytes. Leave the file out.", "not_text", str(path))
        return text

    def _pairs(self, text: str, video: Path, key: str, path: Path) -> Iterator[Record | Reject]:
        good = list[Cue]()
        for cue in parse_cues(text, self.config.max_cues):
            if isinstance(cue, WrongCue):
                yield Reject(f"{key}/{cue.number:06d}", cue.message, cue.reason, f"{path} cue {cue.number}")
            else:
                good.append(cue)
        if not good:
            yield Reject(
                key, "subtitles must have cues; none was found. Check that it is .srt or .vtt.", "no_cues", str(path)
            )
            return
        said = list[Cue]()
        for cue in without_overlaps(good, self.config.overlaps == "cut"):
            config = self.config
            clean = cleaned(cue, config.music, config.sounds, config.speakers)
            if clean.text:
                said.append(clean)
                continue
            message = "a cue must say something new; this one is a sound, a song, or what was said before."
            yield Reject(f"{key}/{cue.number:06d}", message, "no_words", f"{path} cue {cue.number}")
        if self.config.merge == "sentences":
            said = list(sentences(said, self.config.max_gap, self.config.max_seconds))
        long = list[Cue]()
        for cue in said:
            if len(cue.text.split()) >= self.config.min_words:
                long.append(cue)
                continue
            message = f"words must be at least {self.config.min_words}; got {cue.text!r}. Lower min_words."
            yield Reject(f"{key}/{cue.number:06d}", message, "too_few_words", f"{path} cue {cue.number}")
        yield from self._frames(long, video, key, path)

    def _frames(self, cues: list[Cue], video: Path, key: str, path: Path) -> Iterator[Record | Reject]:
        moment = self.config.moment
        cues = sorted(cues, key=lambda c: (c.start + moment * (c.end - c.start), c.number))
        times = [c.start + moment * (c.end - c.start) for c in cues]
        draw = fold("video", printable(video.name)) / 2**63
        split = "val" if draw < self.config.val_videos else "train"
        done = 0
        try:
            for cue, frame in zip(cues, frames_at(video, times, self.config.max_side, MAX_PIXELS), strict=True):
                done += 1
                name, where = f"{key}/{cue.number:06d}", f"{path} cue {cue.number}"
                if isinstance(frame, BadVideo):
                    yield Reject(name, str(frame), frame.reason, where)
                else:
                    yield self._record(name, cue, frame, split, video)
        except (BadVideo, OSError) as error:  # the whole video: each cue that is lost with it is named
            reason = error.reason if isinstance(error, BadVideo) else "unreadable"
            for cue in cues[done:]:
                yield Reject(f"{key}/{cue.number:06d}", f"{error}", reason, f"{path} cue {cue.number}")

    def _record(self, name: str, cue: Cue, frame: Frame, split: str, video: Path) -> Record:
        tensor = torch.from_numpy(np.ascontiguousarray(frame.pixels)).permute(2, 0, 1)
        meta = {
            "start": round(cue.start, 3),
            "end": round(cue.end, 3),
            "frame_time": round(frame.time, 3),
            "split": split,
        }
        if cue.speaker:
            meta["speaker"] = printable(cue.speaker)
        record = Record.pair(name, encode_jpeg(tensor), "jpg", (cue.text,), meta=meta)
        return self.from_here(record, printable(str(video)), f"{cue.start:.3f}-{cue.end:.3f} s", "frame")


def _video_of(path: Path) -> Path | None:
    """film.mp4 of film.srt or film.en.srt; a link is not followed out of the folder."""
    stems = [path.stem, path.stem.rpartition(".")[0]]
    for stem in filter(None, stems):
        for suffix in FORMATS:
            video = path.with_name(stem + suffix)
            if video.is_file() and video.resolve().parent == path.parent.resolve():
                return video
    return None
