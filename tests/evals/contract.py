"""What the test of an eval gives to the contract (`test_contract.py`): models that are perfect or guess, and data."""

from collections.abc import Callable
from typing import Any, NamedTuple

from diptych.models.pretrained import Pretrained


class Case(NamedTuple):
    """A model and a split of `n` items for an eval with these settings. `n`: independent items that it must count."""

    model: Pretrained
    split: Any
    settings: dict[str, Any]
    n: int


Maker = Callable[[bool, int], Case]
"""From (perfect or guessing, about how many items) to a case. Perfect must reach `Eval.best`, guessing chance."""
