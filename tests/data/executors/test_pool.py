"""The pool: results in order, errors as they are, a dead worker named."""

import os
import subprocess
import sys

import pytest

from diptych.core.errors import ConfigError, DataError
from diptych.data.executors.executor import executor
from diptych.data.executors.pool import Pool


def squared(x: int) -> int:
    if x < 0:
        raise DataError(f"x must be at least 0; got {x}.")
    if x == 13:
        os._exit(1)
    return x * x


@pytest.mark.parametrize("jobs", [1, 3])
def test_results_come_in_order(jobs: int) -> None:
    assert list(executor("pool", jobs).map(squared, range(12))) == [x * x for x in range(12)]
    assert list(executor("pool", jobs).map(squared, [])) == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_is_raised_where_results_are_taken(jobs: int) -> None:
    with pytest.raises(DataError, match="x must be at least 0; got -1"):
        list(executor("pool", jobs).map(squared, [1, 2, -1, 3]))


def test_a_worker_that_dies_ends_the_map_with_advice() -> None:
    with pytest.raises(DataError, match="one died"):
        list(executor("pool", 2).map(squared, [1, 13, 2, 3]))


def test_cores_are_used_where_nothing_is_said() -> None:
    made = executor()
    assert isinstance(made, Pool)
    assert made.jobs >= 1
    with pytest.raises(ConfigError, match="Did you mean 'pool'"):
        executor("pol")


FORKED = """
import torch
from diptych.data.executors.executor import executor

def sums(n):
    x = torch.full((400, 4000), float(n))
    return float((x.double() @ x.double().T).sum() + x.to(torch.float16).float().sum()), torch.get_num_threads()

torch.set_num_threads(2)
first = sums(1)
print(first[0] == list(executor("pool", 2).map(sums, [1, 2]))[0][0], list(executor("pool", 2).map(sums, [1, 2]))[0][1])
"""


def test_a_process_that_has_used_threads_can_be_forked() -> None:
    """OpenMP's threads stay behind, and a worker that asked for them would wait for ever."""
    env = {**os.environ, "OMP_NUM_THREADS": "2"}
    run = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, env=env, timeout=120)
    assert run.stdout.split() == ["True", "1"], run.stderr
