import math

import numpy as np
import pytest

from diptych.core.errors import EvalError
from diptych.evals.cider import Cider
from tests.reference.cider import plain_cider

REFERENCES = [
    ["a red circle above a blue square", "a circle and a square", "Two shapes: one red, one blue."],
    ["two dogs run on the beach", "dogs running along the sea"],
    ["a man rides a red horse on the beach"],
    ["a plate of food with a fork", "food on a white plate", "a fork and a plate of food on the table"],
]
CAPTIONS = [
    "a red circle above a square",
    "two dogs run on the beach",
    "a man on a horse on a horse on a horse",
    "the the the",
]
COCO = [3.1995801524560012, 5.3976571463554315, 1.2220534954614861, 0.01243601414405611]


def test_equals_the_plain_twin():
    found = Cider(REFERENCES).scores(CAPTIONS)
    slow = [plain_cider(CAPTIONS, REFERENCES, i) for i in range(4)]
    np.testing.assert_allclose(found, slow, rtol=1e-12)


def test_equals_what_cocos_own_scorer_says():
    """Values of pycocoevalcap 1.2's Cider on the same words. It is not installed here: its wheel is 100 MB of Java."""
    np.testing.assert_allclose(Cider(REFERENCES).scores(CAPTIONS), COCO, rtol=1e-9)


def test_by_hand():
    scorer = Cider([["a b c d"], ["e f g h"]])
    assert scorer.score(0, "a b c d") == pytest.approx(10)
    assert scorer.score(0, "A b, c d!") == pytest.approx(10)  # case and punctuation do not count
    assert scorer.score(0, "e f g h") == 0
    # "a b": of 4 words 2 shared (cosine 1/sqrt 2), of 3 pairs 1; no longer grams; two words shorter
    expected = 10 / 4 * (1 / math.sqrt(2) + 1 / math.sqrt(3)) * math.exp(-4 / 72)
    assert scorer.score(0, "a b") == pytest.approx(expected)
    assert Cider([["a b c d"]]).score(0, "a b c d") == 0  # of one image every word is in all images
    assert scorer.score(0, "") == 0


def test_what_is_missing_is_said():
    with pytest.raises(EvalError, match="at least one reference for each image; got 2 images, 1 without"):
        Cider([["a"], []])
    with pytest.raises(EvalError, match="one caption an image; got 1 for 2"):
        Cider([["a"], ["b"]]).scores(["a"])
