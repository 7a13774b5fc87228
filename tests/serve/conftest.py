import pytest

from diptych.data.dataset import Dataset
from tests.serve import packed


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Dataset:
    return packed.write(tmp_path_factory.mktemp("packed") / "data")
