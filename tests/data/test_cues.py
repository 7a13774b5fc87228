"""Subtitles as they really are, and what they may not be."""

import pytest

from diptych.data.cues import Cue, WrongCue, cleaned, parse_cues, sentences, without_overlaps

SRT = """1
00:00:01,000 --> 00:00:02,500
<i>A fox</i> jumps
over &amp; over.

2
00:00:03,000 --> 00:00:04,000 X1:10 X2:20
{\\an8}Again.
3
00:00:05,5-->0:06,000
Without a gap
"""
VTT = """WEBVTT - a title

NOTE 00:00 is no cue
nor this

STYLE
::cue { color: red }

intro
00:01.000 --> 00:02.000 align:start
<v.loud Anna>Look at <c.yellow>that</c>!</v>

00:00:02.000 --> 00:00:03.000
Next"""


def test_srt() -> None:
    assert list(parse_cues(SRT.replace("\n", "\r\n"))) == [
        Cue(1, 1.0, 2.5, "A fox jumps\nover & over."),
        Cue(2, 3.0, 4.0, "Again."),
        Cue(3, 5.5, 6.0, "Without a gap"),
    ]


def test_vtt() -> None:
    assert list(parse_cues(VTT)) == [Cue(1, 1.0, 2.0, "Look at that!", "Anna"), Cue(2, 2.0, 3.0, "Next")]


@pytest.mark.parametrize(
    "times, reason",
    [
        ("00:00:02,000 --> 00:00:01,000", "time_backwards"),
        ("00:00:02,000 --> 00:00:02,000", "zero_length"),
        ("999:00:02,000 --> 999:00:03,000", "bad_time"),
    ],
)
def test_times_that_cannot_be(times: str, reason: str) -> None:
    (wrong,) = parse_cues(f"1\n{times}\nwords\n")
    assert isinstance(wrong, WrongCue)
    assert (wrong.number, wrong.reason) == (1, reason)
    assert wrong.message.endswith(".")


def test_limits() -> None:
    many = list(parse_cues("00:01 --> 00:02\nx\n\n" * 50, max_cues=10))
    assert len(many) == 11
    assert isinstance(many[-1], WrongCue)
    assert many[-1].reason == "too_many_cues"
    (long,) = parse_cues("00:01 --> 00:02\n" + "x" * 5000)
    assert isinstance(long, WrongCue)
    assert long.reason == "text_too_long"
    assert list(parse_cues("no cues at all\n-->\n" * 1000)) == []


def test_music_sounds_and_speakers() -> None:
    cue = Cue(1, 0.0, 1.0, "♪ la la ♪\n[door slams] ANNA: Look (sighs) there.\n- ")
    assert cleaned(cue) == Cue(1, 0.0, 1.0, "Look there.", "ANNA")
    assert cleaned(cue, speakers=True).text == "ANNA: Look there."
    assert cleaned(cue, music=True, sounds=True).text == "♪ la la ♪ [door slams] ANNA: Look (sighs) there."
    assert cleaned(Cue(1, 0.0, 1.0, "(laughs)")).text == ""
    assert cleaned(Cue(1, 0.0, 1.0, "Time: it is 12:30 now.")).text == "it is 12:30 now."


def test_overlaps_are_cut_and_rolling_lines_said_once() -> None:
    cues = [Cue(2, 2.0, 4.0, "one\ntwo"), Cue(1, 0.0, 2.5, "zero\none"), Cue(3, 4.0, 5.0, "one\ntwo")]
    assert list(without_overlaps(cues)) == [
        Cue(1, 0.0, 2.0, "zero\none"),
        Cue(2, 2.0, 4.0, "two"),
        Cue(3, 4.0, 5.0, ""),
    ]
    assert [c.end for c in without_overlaps(cues, cut=False)] == [2.5, 4.0, 5.0]


def test_sentences() -> None:
    cues = [
        Cue(1, 0.0, 1.0, "A fox"),
        Cue(2, 1.0, 2.0, "jumps."),
        Cue(3, 2.0, 3.0, "It"),
        Cue(4, 9.0, 10.0, "sleeps", "ANNA"),
        Cue(5, 10.0, 11.0, "now", "BEN"),
    ]
    assert [(c.number, c.end, c.text) for c in sentences(cues)] == [
        (1, 2.0, "A fox jumps."),
        (3, 3.0, "It"),
        (4, 10.0, "sleeps"),
        (5, 11.0, "now"),
    ]
    assert [c.text for c in sentences(cues[:2], max_characters=5)] == ["A fox", "jumps."]
