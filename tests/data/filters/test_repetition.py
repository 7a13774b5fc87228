"""Shares of repeated n-grams beside a plain reading."""

import random

import pytest

from diptych.core.errors import ConfigError
from diptych.data.candidates import CandidatePool
from diptych.data.filters.repetition import RepetitionConfig, character_repetition, word_repetition
from tests.data.curation_pools import packed_pool
from tests.data.filters.judged import judged

CAPTIONS = [
    ["a red dog runs over the wide green meadow near the old house"],
    ["buy now buy now buy now buy now buy now buy now"],
    ["hahahahahahahahahahahahahahahaha"],
    ["short"],
]


def test_reasons(tmp_path) -> None:
    pool = CandidatePool(packed_pool(tmp_path / "d", CAPTIONS))
    assert judged(pool, RepetitionConfig(), tmp_path) == ["", "repeated_words", "repeated_characters", ""]
    assert judged(pool, RepetitionConfig(thresholds="obelics_document"), tmp_path) == ["", "repeated_words", "", ""]
    assert judged(pool, RepetitionConfig(thresholds="none"), tmp_path) == [""] * 4
    only = RepetitionConfig(thresholds="none", max_characters=0.5)
    assert judged(pool, only, tmp_path) == ["", "", "repeated_characters", ""]
    with pytest.raises(ConfigError, match="thresholds"):
        RepetitionConfig(thresholds="obelix")


def test_shares_are_those_of_the_plain_reading() -> None:
    draw = random.Random(0)
    for _ in range(200):
        words = [draw.choice(["a", "b", "c", "Dog"]) for _ in range(draw.randint(0, 30))]
        text, n = " ".join(words), draw.randint(1, 4)
        grams = [" ".join(words[i : i + n]).lower() for i in range(len(words) - n + 1)]
        expected = sum(grams.count(g) > 1 for g in grams) / len(grams) if grams else 0
        assert word_repetition(text, n) == pytest.approx(expected)
        grams = [text[i : i + n] for i in range(len(text) - n + 1)]
        counts = sorted((grams.count(g) for g in set(grams)), reverse=True)
        several = min(int(len(counts) ** 0.5), len(counts) - counts.count(1))
        expected = sum(counts[:several]) / sum(counts) if grams else 0
        assert character_repetition(text, n) == pytest.approx(expected)
