import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from diptych.evals import vector_geometry as shape
from tests.reference import geometry as plain


def _vectors(seed, n=80, width=12, lean=0.0):
    x = np.random.default_rng(seed).standard_normal((n, width)) * np.linspace(1.5, 0.3, width) + lean
    return torch.from_numpy(x / np.linalg.norm(x, axis=1, keepdims=True)).float()


@pytest.mark.parametrize("cells", [100, 1 << 22])
def test_neighbours_in_chunks_are_those_of_the_whole_matrix(cells, monkeypatch):
    monkeypatch.setattr(shape, "_CELLS", cells)
    x = _vectors(0)
    found = shape.neighbours(x)
    np.testing.assert_allclose(found.kernel, plain.kernel_means(x.double().numpy()), rtol=1e-5)
    distance, place = NearestNeighbors(n_neighbors=2).fit(x.numpy()).kneighbors(x.numpy())
    assert found.nearest.tolist() == place[:, 1].tolist()
    np.testing.assert_allclose(found.cosine, 1 - distance[:, 1] ** 2 / 2, atol=1e-5)


def test_uniformity_is_the_formula_and_its_interval_the_bootstraps():
    x = _vectors(1, lean=0.3)
    value, (low, high) = shape.uniformity(shape.neighbours(x).kernel)
    rows = x.double().numpy()
    assert value == pytest.approx(plain.uniformity(rows), abs=1e-5)
    rng = np.random.default_rng(0)
    drawn = [
        np.log(plain.kernel_mean_of_resample(rows, rng.multinomial(80, np.full(80, 1 / 80)).astype(float)))
        for _ in range(400)
    ]
    assert (high - low) / (2 * shape.Z) == pytest.approx(np.std(drawn), rel=0.2)


@pytest.mark.parametrize("width", [2, 3, 16, 256])
def test_the_uniformity_of_random_vectors_is_known(width):
    x = shape.random_vectors(1500, width, 0)
    value, (low, high) = shape.uniformity(shape.neighbours(x).kernel)
    assert value == pytest.approx(shape.random_uniformity(width), abs=max(0.01, 2 * (high - low)))


def test_the_interval_of_uniformity_covers():
    held = []
    for seed in range(100):
        x = shape.random_vectors(60, 4, seed)
        x = torch.nn.functional.normalize(x + torch.tensor([0.8, 0, 0, 0]), dim=1)
        value, (low, high) = shape.uniformity(shape.neighbours(x).kernel)
        held.append((value, low, high))
    truth = np.log(np.mean(np.exp([v for v, _, _ in held])))
    assert 0.88 <= np.mean([low <= truth <= high for _, low, high in held]) <= 1


def test_the_spectrum_is_the_principal_components():
    x = _vectors(2, lean=0.2)
    found = shape.spectrum(x)
    theirs = PCA().fit(x.double().numpy()).explained_variance_ratio_
    np.testing.assert_allclose(found.shares, theirs, atol=1e-10)
    np.testing.assert_allclose(found.squares.mean(0), found.shares, atol=1e-10)
    about_origin = shape.spectrum(x, centred=False)
    singular = np.linalg.svd(x.double().numpy(), compute_uv=False) ** 2
    np.testing.assert_allclose(about_origin.shares, singular / singular.sum(), atol=1e-10)


@pytest.mark.parametrize("of,power", [("singular_values", 1), ("variances", 2)])
def test_the_effective_rank_and_its_interval(of, power):
    x = _vectors(3, n=300)
    value, (low, high) = shape.effective_rank(shape.spectrum(x), of)
    rows = x.double().numpy()
    assert value == pytest.approx(plain.effective_rank(rows, power), abs=1e-6)
    sd = plain.bootstrap_sd(rows, lambda r: plain.effective_rank(r, power), 300, 0)
    assert (high - low) / (2 * shape.Z) == pytest.approx(sd, rel=0.25)
    random = shape.effective_rank(shape.spectrum(shape.random_vectors(300, 12, 0)), of)[0]
    assert value < random <= 12


@pytest.mark.parametrize("k", [1, 4])
def test_the_share_of_the_first_components_and_its_interval(k):
    x = _vectors(4, n=300)
    value, (low, high) = shape.top_share(shape.spectrum(x), k)
    rows = x.double().numpy()
    assert value == pytest.approx(plain.top_share(rows, k), abs=1e-9)
    sd = plain.bootstrap_sd(rows, lambda r: plain.top_share(r, k), 300, 0)
    assert (high - low) / (2 * shape.Z) == pytest.approx(sd, rel=0.25)


def test_a_collapsed_space_has_one_direction():
    x = torch.full((20, 4), 0.5)
    found = shape.spectrum(x)
    assert found.shares.tolist() == [1, 0, 0, 0]
    assert shape.effective_rank(found, "variances")[0] == 1
    assert shape.uniformity(shape.neighbours(x).kernel)[0] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("cells", [50, 1 << 22])
def test_cosines_are_counted_apart(cells, monkeypatch):
    monkeypatch.setattr(shape, "_CELLS", cells)
    images, texts = _vectors(5, 30), _vectors(6, 20)
    pairs = torch.tensor([[i, i % 20] for i in range(30)])
    mine, others = shape.cosine_counts(images, texts, pairs)
    cosines = (images @ texts.T).numpy()
    want = np.histogram([cosines[i, t] for i, t in pairs.tolist()], np.linspace(-1, 1, shape.BINS + 1))[0]
    assert np.abs(mine - want).sum() <= 2  # a cosine at an edge
    assert (mine.sum(), others.sum()) == (30, 570)
