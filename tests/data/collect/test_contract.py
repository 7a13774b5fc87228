"""What every collector promises: found by its file's name, settings that survive the disk, a licence setting."""

from contextlib import suppress

import pytest

from diptych.core.config import from_json, to_json
from diptych.core.errors import DiptychError
from diptych.data.collect.collector import COLLECTORS, Collector, collector, collectors, settings_of


@pytest.mark.parametrize("name", collectors())
def test_promises(name: str, tmp_path) -> None:
    config = COLLECTORS.find(name)
    made = config(path=str(tmp_path))
    assert from_json(to_json(made)) == made
    assert "licence" in settings_of(name)
    assert (config.__doc__ or "").strip()


@pytest.mark.parametrize("name", collectors())
def test_it_is_a_source_named_after_its_file(name: str, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    with suppress(DiptychError):  # settings that it cannot do without are asked for in the house's own words
        made = collector(name, str(tmp_path / "empty"))
        assert isinstance(made, Collector)
        assert made.collector == name
        assert made.next_step() == ""
