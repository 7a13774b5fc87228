"""Requests to one host keep their distance, over threads too; other hosts are not waited for."""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor

from diptych.data.web.host_clock import HostClock


def test_each_request_has_its_turn(tmp_path) -> None:
    clocks = [HostClock(tmp_path, 0.05), HostClock(tmp_path, 0.05)]
    times = []

    def ask(i: int) -> None:
        clocks[i % 2].wait("a.example")
        times.append(time.time())

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(ask, range(6)))
    times.sort()
    assert all(b - a > 0.03 for a, b in itertools.pairwise(times))
    started = time.time()
    clocks[0].wait("b.example")
    assert time.time() - started < 0.04


def test_a_longer_interval_of_the_host_holds(tmp_path) -> None:
    clock = HostClock(tmp_path, 0.0)
    started = time.time()
    clock.wait("a.example")
    clock.wait("a.example", 0.1)
    clock.wait("a.example", 0.1)
    assert 0.09 < time.time() - started < 1
