import numpy as np

from diptych.evals import nearest_captions as module
from diptych.evals.nearest_captions import nearest_captions

OTHERS = [
    "a red circle above a blue star",
    "a blue star above a red circle",
    "two green rings",
    "a red circle",
    "A  red circle",
]


def test_the_nearest_says_most_nearly_the_same():
    asked = [
        "a red circle above a blue cross",  # the pairs of words tell the first from the second
        "a blue star above a red square",
        "three green rings",
        "a red circle",  # equal: the first of two
        "nothing of the kind",
    ]
    found = nearest_captions(asked, OTHERS)
    assert found.place.tolist()[:4] == [0, 1, 2, 3]
    assert found.equal.tolist() == [False, False, False, True, False]
    assert found.near[3] == 1
    assert (found.near[:3] > 0.3).all()
    assert (found.near[:3] < 1).all()
    assert found.near[4] == 0


def test_many_at_once_equal_one_by_one(monkeypatch):
    asked = [f"a {c} {s}" for c in ("red", "blue", "green") for s in ("star", "circle", "rings")]
    whole = nearest_captions(asked, OTHERS)
    monkeypatch.setattr(module, "_CELLS", 20)
    parts = nearest_captions(asked, OTHERS)
    single = [nearest_captions([a], OTHERS) for a in asked]
    for other in (parts, module.Nearest(*(np.concatenate(x) for x in zip(*single, strict=True)))):
        assert (whole.place == other.place).all()
        np.testing.assert_allclose(whole.near, other.near)
