"""Random numbers that depend on their key and name alone, and look random."""

import numpy as np

from diptych.core.seeds import fold
from diptych.data.draws import Draws

KEYS = [fold(7, n) for n in range(2000)]


def test_the_batch_changes_nothing() -> None:
    whole = Draws(KEYS)
    for i in (0, 3, 1999):
        alone = Draws([KEYS[i]])
        assert np.array_equal(alone.uniform("a", 5)[0], whole.uniform("a", 5)[i])
        assert np.array_equal(alone.normal("a", 5)[0], whole.normal("a", 5)[i])
        assert np.array_equal(alone.coarse_normal("a", 11)[0], whole.coarse_normal("a", 11)[i])
    assert np.array_equal(whole.uniform("a", 3), whole.uniform("a", 5)[:, :3]), "more numbers continue the same ones"
    assert not np.array_equal(whole.uniform("a"), whole.uniform("b"))
    assert len(whole) == 2000


def test_uniform_is_uniform_and_independent() -> None:
    u = Draws(KEYS).uniform("u", 8, -1.0, 3.0)
    assert u.min() >= -1
    assert u.max() < 3
    counts, _ = np.histogram(u, bins=16, range=(-1, 3))
    assert ((counts - 1000) ** 2 / 1000).sum() < 40, "chi squared with 15 degrees of freedom: 40 is one in two thousand"
    assert np.abs(np.corrcoef(np.hstack([u, Draws(KEYS).uniform("v", 8)]).T) - np.eye(16)).max() < 0.1


def test_normals_have_their_moments() -> None:
    for x in (Draws(KEYS).normal("n", 20), Draws(KEYS[:50]).coarse_normal("n", 1000)):
        assert abs(x.mean()) < 0.02
        assert abs(x.std() - 1) < 0.02
        assert abs((x**4).mean() - 3) < 0.2
        assert np.isfinite(x).all()


def test_happens_as_often_as_asked() -> None:
    draws = Draws(KEYS)
    assert abs(draws.happens("h", 0.3).mean() - 0.3) < 0.05
    assert not draws.happens("h", 0.0).any()
    assert draws.happens("h", 1.0).all()
