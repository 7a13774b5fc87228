"""Workers answer in turn, rest in between, and say how they failed."""

import sys
from pathlib import Path

import pytest
from benchmarks.turns import SideError, Worker, in_turns, peer_python


def stub(name: str) -> Worker:
    return Worker(name, sys.executable, "tests.benchmarks.stub_side")


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_sides_take_turns_and_rest_in_between():
    with stub("a") as a, stub("b") as b:
        pids = [w.ask("open", value=i)["pid"] for i, w in enumerate((a, b))]
        assert [state_of(p) for p in pids] == ["T", "T"]
        found = in_turns((a, b), 2, "run", add=10)
        assert [x["sum"] for x in found["a"]] == [10, 10]
        assert [x["sum"] for x in found["b"]] == [11, 11]
        times = [found[name][i]["at"] for i in range(2) for name in ("a", "b")]
        assert times == sorted(times)
        assert "python" in a.ask("versions")


def test_a_failure_names_the_side_and_its_log_and_the_side_lives_on():
    with stub("a") as a:
        a.ask("open", value=1)
        with pytest.raises(SideError, match=r"a failed in fail: ValueError: as asked\n.*log"):
            a.ask("fail")
        assert a.ask("run", add=1)["sum"] == 2


def test_a_side_that_ends_is_noticed():
    with stub("a") as a:
        a.ask("open", value=1)
        with pytest.raises(SideError, match=r"a ended in die .exit code 3"):
            a.ask("die")


def test_without_the_peer_it_says_what_to_do(monkeypatch):
    monkeypatch.setenv("BENCH_PYTHON", "/nowhere/python")
    with pytest.raises(SideError, match="Run `make bench` first"):
        peer_python()
