"""Subtitles as people really have them: SubRip (.srt) and WebVTT (.vtt) read by one tolerant parser, and cues to
sentences.

A cue begins at a line with two times and an arrow, and ends at an empty line or at the next such line. What a cue may
not be is named, never mended in silence: times that run backwards, no length, hours that no film has.
"""

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

MAX_HOURS = 48
MAX_CUE_CHARACTERS = 2000
_CLOCK = r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,3}))?"
_TIMES = re.compile(rf"\s*{_CLOCK}\s*-+>\s*{_CLOCK}(?:\s.*)?")
_VOICE = re.compile(r"<v(?:\.[^ >]*)?\s+([^>]{1,80})>")
_TAG = re.compile(r"<[^<>]{0,200}>|\{\\[^{}]{0,200}\}")
_SPEAKER = re.compile(r"^\s*(?:[-–]\s*)?([A-ZÀ-Þ][A-ZÀ-Þ0-9 .'’-]{1,30}|[A-Z][a-z]{1,20})\s*:\s+(?=\S)")
_SOUND = re.compile(r"\[[^\[\]]{0,200}\]|\([^()]{0,200}\)|\*[^*]{1,200}\*")
_MUSIC = re.compile(r"[♩♪♫♬]|^\s*#.*#\s*$")
_END = re.compile(r"[.!?…。！？]['\"”’»)\]]*$")


@dataclass(frozen=True)
class Cue:
    """What is said from `start` to `end` (seconds); `number` is its place in the file, from 1; `speaker` if told."""

    number: int
    start: float
    end: float
    text: str
    speaker: str = ""


class WrongCue(NamedTuple):
    """A cue that is none: its place in the file, a short reason, a sentence."""

    number: int
    reason: str
    message: str


def parse_cues(text: str, max_cues: int = 100_000) -> Iterator[Cue | WrongCue]:
    """The cues of an .srt or .vtt in the order of the file, their lines unread but for entities and voice tags."""
    lines = text.splitlines()
    starts = (i for i, line in enumerate(lines) if "->" in line and _TIMES.fullmatch(line))
    number, place = 0, next(starts, None)
    while place is not None:
        number += 1
        following = next(starts, None)
        if number > max_cues:
            yield WrongCue(number, "too_many_cues", f"a file must have at most {max_cues:,} cues; got more. Split it.")
            return
        yield _cue(number, lines[place], lines[place + 1 : following], following is not None)
        place = following


def _cue(number: int, times: str, body: Sequence[str], more: bool) -> Cue | WrongCue:
    match = _TIMES.fullmatch(times)
    assert match is not None
    start, end = _seconds(match.groups()[:4]), _seconds(match.groups()[4:])
    if max(start, end) > MAX_HOURS * 3600:
        return WrongCue(
            number, "bad_time", f"a cue must lie in the first {MAX_HOURS} hours; got {times.strip()[:60]!r}."
        )
    if end < start:
        return WrongCue(number, "time_backwards", f"a cue must end after it begins; got {times.strip()[:60]!r}.")
    if end == start:
        return WrongCue(number, "zero_length", f"a cue must have a length; got {times.strip()[:60]!r}.")
    kept = list[str]()
    for i, line in enumerate(body):
        if not line.strip():
            break
        if more and i == len(body) - 1 and line.strip().isdecimal():
            break  # the next cue's number, where no empty line divides them
        kept.append(line)
    text = "\n".join(kept)
    if len(text) > MAX_CUE_CHARACTERS:
        most = f"{MAX_CUE_CHARACTERS:,}"
        return WrongCue(number, "text_too_long", f"a cue must have at most {most} characters; got {len(text):,}.")
    voice = _VOICE.search(text)
    text = html.unescape(_TAG.sub("", text)).replace("\u200b", "").replace("\ufeff", "")
    return Cue(number, start, end, text, voice[1].strip() if voice else "")


def _seconds(parts: Sequence[str | None]) -> float:
    hours, minutes, seconds, fraction = parts
    whole = int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)
    return whole + int((fraction or "0").ljust(3, "0")) / 1000


def cleaned(cue: Cue, music: bool = False, sounds: bool = False, speakers: bool = False) -> Cue:
    """The cue on one line, without what is not asked for: lines of songs (♪), sounds in brackets, names of speakers."""
    kept, speaker = list[str](), cue.speaker
    for line in cue.text.splitlines():
        if not music and _MUSIC.search(line):
            continue
        line = line if sounds else _SOUND.sub(" ", line)
        named = _SPEAKER.match(line)
        if named:
            speaker = speaker or named[1].strip()
            line = line[named.end() :]
        if line.strip(" -–\t"):
            kept.append(line.strip())
    text = " ".join(" ".join(kept).split())
    if speakers and speaker and text:
        text = f"{speaker}: {text}"
    return replace(cue, text=text, speaker=speaker)


def without_overlaps(cues: Iterable[Cue], cut: bool = True) -> Iterator[Cue]:
    """Cues in the order of their times, each ending (with `cut`) where the next begins; a line that rolls on from one
    cue to the next is said once. A cue that has nothing left to say comes with an empty text."""
    ordered = sorted(cues, key=lambda c: (c.start, c.number))
    said: list[str] = []
    for place, cue in enumerate(ordered):
        lines = [line for line in cue.text.splitlines() if line.strip()]
        fresh = list(lines)
        for shared in range(min(len(said), len(lines)), 0, -1):
            if said[-shared:] == lines[:shared] and cue.start - ordered[place - 1].end < 0.1:
                fresh = lines[shared:]
                break
        said = lines
        end = cue.end
        if cut and place + 1 < len(ordered) and cue.start < ordered[place + 1].start < end:
            end = ordered[place + 1].start
        yield replace(cue, text="\n".join(fresh), end=end)


def sentences(
    cues: Iterable[Cue], max_gap: float = 1.5, max_seconds: float = 15.0, max_characters: int = 400
) -> Iterator[Cue]:
    """Neighbouring cues joined until a sentence ends; never over a pause longer than `max_gap`, nor to more than
    `max_seconds` or `max_characters`, nor from one speaker to another."""
    held: Cue | None = None
    for cue in cues:
        if held is not None:
            joined = f"{held.text} {cue.text}"
            apart = cue.start - held.end > max_gap or cue.end - held.start > max_seconds
            if apart or len(joined) > max_characters or (cue.speaker and cue.speaker != held.speaker):
                yield held
                held = None
            else:
                held = replace(held, end=max(held.end, cue.end), text=joined)
        if held is None:
            held = cue
        if _END.search(held.text):
            yield held
            held = None
    if held is not None:
        yield held
