"""Curations by name and from a file."""

import pytest

from diptych.core.config import from_json, to_json
from diptych.core.errors import ConfigError
from diptych.data.curate import CurationConfig
from diptych.data.curations.curation import curation, curations, from_toml, settings_of, with_settings
from diptych.data.filters.caption_length import CaptionLengthConfig
from diptych.data.filters.score import ScoreConfig


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


MINE = CurationConfig(filters=(CaptionLengthConfig(), ScoreConfig(), ScoreConfig(score="clip")))


def test_filters_take_settings_by_their_names() -> None:
    given = ["caption_length.min_words=3", "caption_length.of=any", "filters.2.fraction=0.3", 'splits=["train","val"]']
    found = with_settings(MINE, given)
    assert found.splits == ("train", "val")
    assert found.filters == (
        CaptionLengthConfig(min_words=3, of="any"),
        ScoreConfig(),
        ScoreConfig(score="clip", fraction=0.3),
    )
    assert with_settings(MINE, []) == MINE
    assert with_settings(MINE, settings_of(found)) == found


@pytest.mark.parametrize(
    "given, words",
    [
        ("caption_length.min_word=3", "caption_length.min_word must name a field .* Did you mean 'min_words'"),
        ("caption_length.min_words=few", "caption_length.min_words must be a valid integer"),
        ("caption_lenght.min_words=3", "must name a filter of this curation; .* Did you mean 'caption_length'"),
        ("score.threshold=1", "got several called score. Set filters.1.threshold or filters.2.threshold"),
        ("min_words=3", "must be FILTER.FIELD=VALUE; got 'min_words=3'"),
        ("caption_length.min_words", "must be FILTER.FIELD=VALUE"),
        ("filters.9.threshold=1", "one of the 3 of filters"),
    ],
)
def test_settings_that_are_none(given, words) -> None:
    with pytest.raises(ConfigError, match=words):
        with_settings(MINE, [given])
