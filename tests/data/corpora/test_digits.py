import io

import numpy as np
import pytest
from PIL import Image

from diptych.core.errors import FetchError
from diptych.core.record import Record
from diptych.data.corpora.corpus import corpus
from diptych.data.corpora.digits import NAMES


def test_every_scan_with_its_name() -> None:
    records = [r for r in corpus("digits").records() if isinstance(r, Record)]
    assert len(records) == 1797
    assert [r.meta["class_index"] for r in records[:10]] == list(range(10))
    for record in records[:50]:
        assert record.meta["label"] == NAMES[record.meta["class_index"]]
        assert all(record.meta["label"] in text for text in record.segments[1].texts)
    share = sum(r.meta["split"] == "test" for r in records) / 1797
    assert share == pytest.approx(0.2, abs=0.03)


def test_dark_ink_on_white_repeated_not_smoothed() -> None:
    from sklearn.datasets import load_digits

    record = next(iter(corpus("digits", scale=3).records()))
    assert isinstance(record, Record)
    pixels = np.asarray(Image.open(io.BytesIO(record.segments[0].data)))
    assert pixels.shape == (24, 24)
    assert pixels[0, 0] == 255
    scan = load_digits().images[0]
    assert np.array_equal(pixels[1::3, 1::3], 255 - np.rint(scan * 255 / 16).astype(np.uint8))
    assert np.array_equal(pixels, pixels[::3, ::3].repeat(3, 0).repeat(3, 1))


def test_without_scikit_learn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(FetchError, match=r"read from scikit-learn; .*pip install 'diptych\[digits\]'"):
        next(iter(corpus("digits").records()))
