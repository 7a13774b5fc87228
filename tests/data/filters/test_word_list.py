"""Captions with one of a list of words."""

import pytest

from diptych.core.errors import ConfigError
from diptych.data.candidates import CandidatePool
from diptych.data.filters.word_list import WordListConfig
from tests.data.curation_pools import packed_pool
from tests.data.filters.judged import judged


def test_reasons(tmp_path) -> None:
    pool = CandidatePool(packed_pool(tmp_path / "d", [["a Dog runs"], ["a dog, running"], ["dogs"], ["the cat"]]))
    (tmp_path / "words.txt").write_text("dog\n\nCat\n")
    expected = ["", "no_listed_word", "no_listed_word", ""]
    assert judged(pool, WordListConfig(file=str(tmp_path / "words.txt")), tmp_path) == expected
    assert judged(pool, WordListConfig(words=("DOG", "cat")), tmp_path) == expected


def test_a_list_must_be_there(tmp_path) -> None:
    with pytest.raises(ConfigError, match="words or a file"):
        WordListConfig().build()
    with pytest.raises(ConfigError, match="not both"):
        WordListConfig(words=("a",), file="x").build()
    with pytest.raises(ConfigError, match="WordNet is not shipped"):
        WordListConfig(file=str(tmp_path / "none.txt")).build()
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ConfigError, match="must list words"):
        WordListConfig(file=str(tmp_path / "empty.txt")).build()
