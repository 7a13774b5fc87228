"""Workers keep the order, and how many there are follows from the machine."""

import os
import signal
import threading

import pytest

from diptych.core.errors import TrainingError
from diptych.data.workers import cores, in_workers, measured, needed, worker_count


class Squares:
    def __getitem__(self, i: int) -> int:
        if i < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return i * i


def test_items_come_in_order() -> None:
    assert list(in_workers(Squares(), iter(range(20)), 2, 2, 60.0)) == [i * i for i in range(20)]


def test_a_death_between_two_items_is_seen_at_the_next() -> None:
    made = in_workers(Squares(), iter([1, 2, -1, 3, 4, 5, 6, 7]), 1, 2, 60.0)
    with pytest.raises(TrainingError, match="workers must live as long as the run; one died"):
        list(made)


def test_it_works_in_another_thread_too() -> None:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.extend(in_workers(Squares(), iter(range(5)), 1, 2, 60.0)))
    thread.start()
    thread.join(60)
    assert found == [0, 1, 4, 9, 16]


def test_what_a_step_raises_comes_out() -> None:
    class Broken:
        def __getitem__(self, i: int) -> int:
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        list(in_workers(Broken(), iter([1]), 1, 2, 60.0))


def test_count(monkeypatch: pytest.MonkeyPatch) -> None:
    assert worker_count(0) == 0
    assert worker_count(3) == 3
    assert 1 <= worker_count(-1) <= 16
    assert cores() >= 1
    monkeypatch.setattr("diptych.data.workers.can_fork", lambda: False)
    assert worker_count(-1) == 0


@pytest.mark.parametrize(
    "prepare_s, step_s, most, shared, expected",
    [
        (0.010, 0.100, 4, True, 0),
        (0.030, 0.100, 4, True, 1),
        (0.500, 0.100, 4, True, 4),
        (0.010, 0.100, 15, False, 1),
        (0.500, 0.100, 15, False, 6),
        (0.500, 0.0, 15, False, 15),
    ],
)
def test_as_many_as_keep_up(prepare_s: float, step_s: float, most: int, shared: bool, expected: int) -> None:
    assert needed(prepare_s, step_s, most, shared) == expected


def test_the_first_items_are_timed_and_none_is_lost() -> None:
    steps = iter(range(10))
    trial = measured(Squares(), steps, 4, shared=False)
    found = []
    while True:
        try:
            found.append(next(trial))
        except StopIteration as end:
            workers, why = end.value
            break
    assert found + [i * i for i in steps] == [i * i for i in range(10)]
    assert 1 <= workers <= 4
    assert "to prepare, a step" in why
