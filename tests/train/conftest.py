"""One pair of gloo processes for all tests that compare two processes with one: starting them is what takes time."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.train import ranks
from tests.train.locked import save_teacher
from tests.train.tiny_run import tiny_dataset


@pytest.fixture(autouse=True, scope="session")
def _trust_the_tests() -> Iterator[None]:
    """The tiny model's config lives in the tests, and files name it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIPTYCH_TRUST", "tests")
        yield


@pytest.fixture(scope="session")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes have left their gradients and a run."""
    folder = tmp_path_factory.mktemp("two_processes")
    tiny_dataset(folder / "data")
    save_teacher(folder / "data", folder / "teacher")
    ranks.compute_together(folder)
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed dataset of 40 pairs, 20 more for validation."""
    return tiny_dataset(tmp_path_factory.mktemp("tiny") / "data")
