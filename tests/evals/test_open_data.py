"""What an eval is run on, opened by its path."""

import pytest

from diptych.core.errors import DataError
from diptych.evals.open_data import open_data


def test_nothing_there_is_said(tmp_path):
    with pytest.raises(DataError, match="must be a"):
        open_data(tmp_path / "absent")
