"""Signs and letters of any script."""

import string

import pytest

from diptych.data.candidates import CandidatePool
from diptych.data.filters.special_characters import SpecialCharactersConfig, special_share
from tests.data.curation_pools import packed_pool
from tests.data.filters.judged import judged

CAPTIONS = [["a red dog, running"], ["$$$ 50% !!! >>> $9.99"], ["ab 1"], ["हिन्दी में लिखा है"]]


def test_reasons(tmp_path) -> None:
    pool = CandidatePool(packed_pool(tmp_path / "d", CAPTIONS))
    assert judged(pool, SpecialCharactersConfig(), tmp_path) == ["", *["special_characters"] * 2, ""]
    assert judged(pool, SpecialCharactersConfig(max_share=0.5), tmp_path) == ["", "special_characters", "", ""]
    tight = SpecialCharactersConfig(thresholds="obelics_document", max_share=0.2)
    assert judged(pool, tight, tmp_path)[0] == "special_characters"  # 4 of 18


def test_shares() -> None:
    assert special_share("") == 0
    assert special_share("dog 1") == pytest.approx(2 / 5)
    assert special_share("été") == special_share("e\u0301te\u0301") == 0
    assert special_share("😀a") == 0.5
    signs = string.punctuation + string.digits + string.whitespace  # what OBELICS counts, of ASCII
    for text in ("Buy 2, get 1 free!", "a_b-c", string.printable):
        assert special_share(text) == pytest.approx(sum(c in signs for c in text) / len(text))
