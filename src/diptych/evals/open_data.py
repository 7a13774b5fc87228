"""The data that an eval is run on: a packed dataset's folder. Splits are found by name, as the evals ask for them."""

import os
from typing import Any

from diptych.data.dataset import Dataset


def open_data(spec: str | os.PathLike[str]) -> Any:
    """A dataset to evaluate on: `.path`, `.splits`, `.split(name)`, `.held_out(name)`, `.fingerprint`."""
    return Dataset.open(spec)
