import numpy as np
import pytest
import torch

from diptych.core.errors import ConfigError, EvalError
from diptych.evals import knn
from diptych.evals.find import config_for
from diptych.evals.knn import KnnConfig, nearest
from tests.evals import fakes
from tests.evals.contract import Case
from tests.evals.fake_writer import writer
from tests.evals.labelled_data import judged_split
from tests.reference import neighbours


def _features(n, seed, levels=0):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, 6)) if not levels else rng.integers(1, levels, (n, 2))
    return torch.from_numpy(rows.astype(np.float64))


@pytest.mark.parametrize("cells", [1, 500, 1 << 24])
@pytest.mark.parametrize("levels", [0, 3])
def test_neighbours_are_those_of_the_plain_twin_also_with_ties(levels, cells, monkeypatch):
    """With levels, vectors are few and equal ones many: ties, in the middle and across the k-th place."""
    monkeypatch.setattr(knn, "CELLS", cells)
    train, judged = _features(60, 0, levels), _features(20, 1, levels)
    truth = np.arange(60) % 5
    ours, theirs = nearest(train, truth, judged, 7), neighbours.nearest(train.numpy(), truth, judged.numpy(), 7)
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-12)
    if not levels:
        assert ours[1].tolist() == theirs[1].tolist()
    else:  # the twin's cosines of equal vectors differ in the last digit: compare with those of ours
        cosines = torch.nn.functional.normalize(judged, dim=1) @ torch.nn.functional.normalize(train, dim=1).T
        order = cosines.sort(dim=1, descending=True, stable=True).indices[:, :7]
        assert ours[1].tolist() == torch.from_numpy(truth)[order].tolist()


def test_votes_are_the_plain_twins_and_scikit_learns():
    from sklearn.neighbors import KNeighborsClassifier

    train, judged, truth = _features(90, 0), _features(40, 1), np.arange(90) % 5
    cosines, labels = nearest(train, truth, judged, 9)
    votes = KnnConfig().build()._votes(cosines, labels, 5)
    expected = neighbours.votes(cosines.numpy(), labels.numpy(), 5)
    np.testing.assert_allclose(votes.masked_fill(votes == -torch.inf, 0), expected)
    theirs = KNeighborsClassifier(9, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07)).fit(train, truth)
    assert votes.argmax(1).tolist() == theirs.predict(judged).tolist()
    equal = KnnConfig(weights="uniform").build()._votes(cosines, labels, 5)
    even = KNeighborsClassifier(9, metric="cosine").fit(train, truth)
    assert equal.argmax(1).tolist() == even.predict(judged).tolist()  # of equal votes the first class, as there


def test_several_numbers_of_neighbours():
    result = KnnConfig(k=(20, 1)).build().run(fakes.model(perfect=False), judged_split(40))
    assert result.metrics["acc_at_1_k20"] == result.metrics["acc_at_1"]
    assert "acc_at_1_k1" in result.metrics
    assert [f.title for f in result.figures][:2] == ["The neighbours", "How many neighbours"]
    assert config_for("knn", k=5).k == (5,)


def test_errors_say_what_to_do():
    with pytest.raises(EvalError, match="at most the number of images to learn from, 200; got 500"):
        KnnConfig(k=500).build().run(fakes.model(), judged_split(40))
    with pytest.raises((ConfigError, ValueError), match="positive numbers, each once"):
        KnnConfig(k=(5, 5))


def contract_cases():
    def maker(kind):
        def case(perfect, n):
            split = judged_split(n)
            if kind == "writes":
                return Case(writer(fakes.labelled(n, 10), perfect), split, {}, n)
            return Case(fakes.model(kind, perfect, by_label=perfect), split, {}, n)

        return case

    return {"Embeds": maker(fakes.Embeds)}
