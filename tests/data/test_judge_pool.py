"""Many processes: the same verdicts in the same order, and nothing that an image does can stop them."""

import os
import time
from collections.abc import Iterator

import pytest

from diptych.core.errors import DataError
from diptych.core.record import Record
from diptych.data import judge_pool
from diptych.data.judge import Kept, Limits, judge
from diptych.data.judge_pool import judge_all
from diptych.data.sources.source import Reject
from tests.data.pictures import png


def records(n: int) -> Iterator[Record | Reject]:
    for i in range(n):
        if i % 10 == 3:
            yield Reject(f"r{i}", "no good.")
        else:
            yield Record.pair(f"k{i}", b"junk" if i % 10 == 5 else png(i % 7), "png", (f"c{i}",))


def hostile(record: Record, limits: Limits, images_only: bool) -> Kept | Reject:
    """A judge that some images kill and some hang, as broken decoders do."""
    if record.key in ("k21", "k22"):
        os._exit(139)
    if record.key == "k47":
        time.sleep(600)
    return judge(record, limits, images_only)


@pytest.mark.slow
@pytest.mark.dist
def test_two_processes_equal_one() -> None:
    plain = list(judge_all(records(100), Limits(), jobs=1))
    assert [v.key if isinstance(v, Reject) else v.record.key for v in plain][:4] == ["k0", "k1", "k2", "r3"]
    assert list(judge_all(records(100), Limits(), jobs=2)) == plain


def check_hostile(n: int, culprits: set[str], timeout_s: float) -> None:
    verdicts = list(judge_all(records(n), Limits(), jobs=2, timeout_s=timeout_s, judge_one=hostile))
    plain = list(judge_all(records(n), Limits(), jobs=1))
    assert len(verdicts) == n
    for got, want in zip(verdicts, plain, strict=True):
        key = want.key if isinstance(want, Reject) else want.record.key
        if key in culprits:
            assert isinstance(got, Reject)
            assert (got.key, got.reason) == (key, "decoder_crashed")
            assert ("never came back" in got.message) == (key == "k47")
        else:
            assert got == want


@pytest.mark.dist
def test_a_crash_costs_only_the_record_that_does_it() -> None:
    check_hostile(22, {"k21"}, 60.0)


@pytest.mark.slow
@pytest.mark.dist
def test_crashes_and_a_hang_cost_only_the_records_that_do_it() -> None:
    check_hostile(80, {"k21", "k22", "k47"}, 2.0)


@pytest.mark.dist
def test_leaving_early_leaves_no_process() -> None:
    verdicts = judge_all(records(1000), Limits(), jobs=2)
    next(verdicts)
    started = time.monotonic()
    verdicts.close()  # type: ignore[attr-defined]
    assert time.monotonic() - started < 10


def test_workers_that_cannot_start_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_pool, "_start_worker", os._exit)  # called with wrong arguments: the worker ends at once
    with pytest.raises(DataError, match=r"if __name__ == '__main__'"):
        list(judge_all(records(3), Limits(), jobs=2))


def test_the_window_is_bounded() -> None:
    """However slow the verdicts, only a few chunks of records are read ahead."""
    taken = 0

    def source() -> Iterator[Record | Reject]:
        nonlocal taken
        for i in range(10_000):
            taken += 1
            yield Record.pair(f"k{i}", png(i % 5), "png", ("c",))

    verdicts = judge_all(source(), Limits(), jobs=2)
    next(verdicts)
    verdicts.close()  # type: ignore[attr-defined]
    assert taken <= judge_pool.CHUNK_RECORDS * 6
