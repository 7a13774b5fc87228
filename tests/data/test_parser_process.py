"""A parser that crashes, hangs, eats memory or lies: each a named failure, and the next file is read."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diptych.data import parser_process as module
from diptych.data.parser_process import ParserFailed, ParserProcess

ODD = "tests.data.odd_parsers:obey"


@pytest.fixture(scope="module")
def parser():
    with pytest.MonkeyPatch.context() as patch, ParserProcess(ODD, seconds=0.5, memory_gb=2.0) as made:
        patch.setattr(module, "PATIENCE", 240.0)  # the cores may be busy
        yield made


def ask(parser: ParserProcess, data: bytes = b"", **about: Any) -> list[dict[str, Any]]:
    return [answer.said for answer in parser.ask(about, data)]


def test_answers_come_with_their_arrays_one_by_one(parser) -> None:
    found = list(parser.ask({"answers": 3, "then": "print"}, b"12345"))
    assert [a.said["n"] for a in found] == [0, 1, 2]
    assert all(a.said["bytes"] == 5 for a in found)
    assert found[2].array is not None
    assert (found[2].array == np.full((2, 3), 2)).all()
    assert found[2].array.flags.writeable
    assert ask(parser, answers=1)[0]["pid"] == found[0].said["pid"] != os.getpid()
    (large,) = list(parser.ask({"answers": 0, "then": "size", "bytes": 20_000_000}, b"x" * 3_000_000))
    assert large.array is not None
    assert large.array.shape == (20_000_000,)


@pytest.mark.parametrize(
    ("then", "reason", "words"),
    [
        ("crash", "parser_crashed", "its process ended \\(SIGSEGV\\)"),
        ("exit", "parser_crashed", "its process ended \\(status 3\\)"),
        ("spin", "parser_timed_out", "within 0.5 s of processor time"),
        ("eat", "parser_out_of_memory", "memory ran out"),
        ("raise", "parser_failed", "KeyError: 'a page'"),
    ],
)
def test_what_goes_wrong_has_a_name_and_the_next_is_read(parser, then, reason, words) -> None:
    asked = parser.ask({"answers": 1, "then": then})
    assert next(asked).said["n"] == 0
    with pytest.raises(ParserFailed, match=words) as raised:
        next(asked)
    assert raised.value.reason == reason
    assert [said["n"] for said in ask(parser, answers=2)] == [0, 1]


def test_one_that_is_silent_is_ended_by_the_clock(parser, monkeypatch) -> None:
    asked = parser.ask({"answers": 1, "then": "sleep"})
    assert next(asked)  # it has begun: its start is not what is timed
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    with pytest.raises(ParserFailed, match=r"0\.25 s by the clock") as raised:
        list(asked)
    assert raised.value.reason == "parser_timed_out"


def test_a_child_that_an_earlier_file_damaged_is_not_the_next_ones_fault(parser) -> None:
    pid = ask(parser, answers=1)[0]["pid"]
    os.kill(pid, signal.SIGKILL)
    assert ask(parser, answers=1)[0]["pid"] != pid


def test_who_does_not_wait_for_all_gets_a_new_child_next(parser) -> None:
    asked = parser.ask({"answers": 5})
    pid = next(asked).said["pid"]
    asked.close()
    (again,) = ask(parser, answers=1)
    assert again["pid"] != pid
    assert again["n"] == 0


def test_what_it_says_is_taken_for_data_alone(parser, monkeypatch) -> None:
    asked = parser.ask({"answers": 1, "then": "lie", "into": 3})
    next(asked)
    with pytest.raises(ParserFailed) as raised:
        list(asked)
    assert raised.value.reason in ("parser_crashed", "parser_failed")
    monkeypatch.setattr(module, "MAX_ARRAY", 1000)
    with pytest.raises(ParserFailed, match="it said what it must not"):
        list(parser.ask({"answers": 0, "then": "size", "bytes": 1001}))


def test_it_writes_no_file_and_a_parser_that_is_none_says_so(parser, tmp_path: Path) -> None:
    with pytest.raises(ParserFailed):
        ask(parser, answers=0, then="write", path=str(tmp_path / "x"))
    assert not (tmp_path / "x").exists() or (tmp_path / "x").stat().st_size == 0
    with ParserProcess("tests.data.odd_parsers:none") as none, pytest.raises(ParserFailed, match="AttributeError"):
        ask(none)
    parser.close()
    parser.close()


def test_a_child_is_begun_anew_now_and_then(parser, monkeypatch) -> None:
    monkeypatch.setattr(module, "ASKED", 2)
    pids = [ask(parser, answers=1)[0]["pid"] for _ in range(5)]
    assert [len(set(pids[:2])), len(set(pids[2:4])), len(set(pids))] == [1, 1, 3]
