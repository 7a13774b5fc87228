"""Curations by name and from a file."""

import pytest

from diptych.core.config import from_json, to_json
from diptych.core.errors import ConfigError
from diptych.data.curations.curation import curation, curations, from_toml
from diptych.data.filters.caption_length import CaptionLengthConfig


def test_a_file_of_ones_own(tmp_path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('splits = ["train", "val"]\n[[filter]]\nname = "caption_length"\nmin_words = 3\n')
    found = curation(str(path))
    assert found.splits == ("train", "val")
    assert found.filters == (CaptionLengthConfig(min_words=3),)


@pytest.mark.parametrize(
    "text, words",
    [
        ("filters = 3", "got filters"),
        ("[[filter]]\nmin_words = 3", "each with a name"),
        ("[[filter", "must be TOML"),
        ('[[filter]]\nname = "caption_lenght"', "Did you mean 'caption_length'"),
        ('[[filter]]\nname = "caption_length"\nmin_word = 3', "min_word"),
    ],
)
def test_what_is_none_is_said(text, words, tmp_path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        from_toml(path)
    with pytest.raises(ConfigError, match="must be the name of one"):
        curation("datacom")
    with pytest.raises(ConfigError, match="is there"):
        curation(str(tmp_path / "none.toml"))


@pytest.mark.parametrize("name", sorted(curations()) or ["none"])
def test_every_curation_survives_the_disk(name) -> None:
    if name == "none":
        return
    found = curation(name)
    assert from_json(to_json(found)) == found
    assert (curations()[name].__doc__ or "").strip()
