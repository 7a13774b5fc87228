"""Executors are found by the names of their files."""

import pytest

from diptych.core.errors import ConfigError
from diptych.data.executors.executor import executor


def test_an_unknown_executor_is_named() -> None:
    with pytest.raises(ConfigError, match=r"an executor must be one of Diptych.s; got .spark"):
        executor("spark")
