"""Captions too short, too long, or missing."""

import numpy as np

from diptych.data.filters.caption_length import CaptionLengthConfig
from tests.data.curation_pools import all_rows, packed_pool

CAPTIONS = [["a red dog"], ["dog"], ["a very long caption of many words", "a dog"], ["two words"]]


def test_reasons(tmp_path) -> None:
    rows = all_rows(packed_pool(tmp_path / "d", CAPTIONS))[0]
    alive = np.ones(4, dtype=bool)

    def said(**settings) -> list[str]:
        return CaptionLengthConfig(**settings).build().reasons(rows, alive)

    assert said() == [""] * 4
    assert said(min_words=2) == ["", "short_caption", "", ""]
    assert said(min_words=2, max_words=3) == ["", "short_caption", "long_caption", ""]
    assert said(min_words=2, max_words=3, of="any") == ["", "short_caption", "", ""]
    assert said(min_characters=4, max_characters=9) == ["", "short_caption", "long_caption", ""]
