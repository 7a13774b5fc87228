"""Engines are found by the names of their files."""

import pytest

from diptych.core.errors import ConfigError
from diptych.data.engines.engine import engine


def test_an_unknown_engine_is_named() -> None:
    with pytest.raises(ConfigError, match=r"an engine must be one of .*pool"):
        engine("spark")
