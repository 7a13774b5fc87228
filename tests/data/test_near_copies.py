import numpy as np
import pytest
import torch
from scipy.fft import dctn

from diptych.data import near_copies
from diptych.data.decode import encode_jpeg, encode_png, scale_image
from diptych.data.near_copies import find_copies, nearest_vectors, read_sketches
from tests.evals import fakes
from tests.evals.leaky_data import copied, scene
from tests.reference import near_copies as plain


def _split(images):
    return fakes.FakeSplit(images, [() for _ in images])


def _sketches(images):
    return read_sketches(_split(images), range(len(images)))[0]


def test_hashes_and_miniatures_are_those_of_the_plain_twins():
    images = torch.stack([scene(i, 32) for i in range(5)])
    bits, small = near_copies.perceptual_hash(images), near_copies.miniature(images)
    for image, hashed, mini in zip(images.numpy(), bits.numpy(), small.numpy(), strict=True):
        assert hashed.tolist() == plain.perceptual_hash(image).tolist()
        assert np.abs(mini.reshape(3, 16, 16) - plain.miniature(image)).max() <= 1  # halves round either way
    assert ((bits.sum(1) > 10) & (bits.sum(1) < 54)).all()


def test_bits_differ_as_the_angle_between_spectra():
    """Charikar (2002): each bit with the chance angle / pi; of 64 bits and 400 pairs the mean is within a bit of it."""
    rng = torch.Generator().manual_seed(0)
    a = torch.randint(60, 196, (400, 3, 32, 32), generator=rng)
    b = a + torch.randint(-60, 61, a.shape, generator=rng)
    spectra = []
    for images in (a, b):
        x = images.double().numpy()
        grey = np.einsum("bchw,c->bhw", x, [0.299, 0.587, 0.114])
        weight = np.hypot(*np.mgrid[:16, :16])
        planes = [(grey, weight)]
        planes += [(0.5 * (x[:, c] - grey), np.maximum(weight, weight == 0)) for c in (0, 2)]
        spectra.append(np.stack([dctn(p, axes=(1, 2), norm="ortho")[:, :16, :16] * w for p, w in planes], 1))
    x, y = (s.reshape(400, -1) / np.linalg.norm(s.reshape(400, -1), axis=1, keepdims=True) for s in spectra)
    expected = np.arccos((x * y).sum(1)).mean() / np.pi * 64
    differing = near_copies.perceptual_hash(a.byte()) != near_copies.perceptual_hash(b.byte())
    assert abs(float(differing.sum(1).double().mean()) - expected) < 1
    assert expected > 5


def test_a_symmetric_picture_keeps_its_hash():
    """Half of its cosine transform is nothing, and signs of nothing are those of the rounding of whoever saved it."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 256), torch.linspace(-1, 1, 256), indexing="ij")
    pictures = [
        torch.stack([(r < 0.7) * 200.0, (r < 0.4) * 250.0, 255 - (r < 0.2) * 90.0]).byte()
        for r in (x.square() + y.square(), x.abs() + y.abs(), torch.maximum(x.abs(), y.abs()))
    ]
    first = _sketches([encode_png(p) for p in pictures])
    for change in (lambda p: encode_jpeg(p, 30), lambda p: encode_png(scale_image(p, 110, 110, "bilinear"))):
        again = _sketches([change(p) for p in pictures])
        assert (first.bits != again.bits).sum(1).max() <= 2
        assert find_copies(again, first, 6, 0.1).nearest.tolist() == [0, 1, 2]


@pytest.mark.parametrize("share", [0.75, 0.8, 1.2])
def test_a_darker_or_brighter_picture_is_the_same_one(share):
    scenes = [(scene(i).float() * 0.8).byte() for i in range(20)]
    changed = [encode_png((s.float() * share).round().clamp(0, 255).byte()) for s in scenes]
    train = _sketches([encode_png(s) for s in scenes])
    assert find_copies(_sketches(changed), train, 6, 0.1).nearest.tolist() == list(range(20))
    faint = _sketches([encode_png((s.float() * 0.5).byte()) for s in scenes])
    assert not find_copies(faint, train, 6, 0.1).near.any()


def test_neither_comes_first():
    rng = torch.Generator().manual_seed(0)
    a = torch.randint(0, 256, (200, 768), generator=rng).byte()
    b = (a.float() * torch.rand(200, 1, generator=rng) + 20).clamp(0, 255).byte()
    for x, y in zip(near_copies.compare_miniatures(a, b, 0.3), near_copies.compare_miniatures(b, a, 0.3), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("cells,candidates", [(7, 3), (1 << 23, 1 << 14)])
def test_the_search_in_chunks_is_the_loop_over_all_pairs(cells, candidates, monkeypatch):
    monkeypatch.setattr(near_copies, "_CELLS", cells)
    monkeypatch.setattr(near_copies, "_CANDIDATES", candidates)
    base = [scene(i, 32) for i in range(12)]
    rng = torch.Generator().manual_seed(0)
    noise = [torch.randn(3, 32, 32, generator=rng) * s for s in (5, 20, 40, 80, 160, 0)]
    held = [(base[i].float() + n).clamp(0, 255).byte() for i, n in enumerate(noise)] + [scene(100, 32)]
    found = find_copies(_sketches(list(map(encode_png, held))), _sketches(list(map(encode_png, base))), 12, 0.2)
    want = plain.nearest([x.numpy() for x in held], [x.numpy() for x in base], 12, 0.2)
    assert found.nearest.tolist() == want
    assert want[:2] == [0, 1]
    assert want[4] == want[6] == -1
    assert found.exact.tolist() == [False] * 5 + [True, False]
    assert found.apart[5] == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda x: encode_jpeg(x, 50),
        lambda x: encode_jpeg(scale_image(x, 32, 32, "bilinear"), 80),
        lambda x: encode_png(scale_image(x, 90, 60, "bicubic")),
        lambda x: encode_png((x.float() * 0.9).byte()),
    ],
)
def test_pictures_saved_anew_are_found_and_others_are_not(change):
    train = _sketches([encode_png(scene(i)) for i in range(80)])
    held = _sketches([change(scene(i)) for i in range(20)] + [encode_png(scene(i)) for i in range(200, 260)])
    found = find_copies(held, train, 12, 0.2)
    assert found.nearest.tolist() == [*range(20), *[-1] * 60]
    assert not found.exact.any()


def test_plain_pictures_are_copies_if_their_colour_is_alike():
    plain_colour = [encode_png(torch.full((3, 16, 16), v, dtype=torch.uint8)) for v in (10, 20, 200)]
    found = find_copies(_sketches(plain_colour[1:]), _sketches(plain_colour[:1]), 12, 0.2)
    assert found.near.tolist() == [True, False]


def test_broken_images_are_left_out_and_named():
    sketches, reader = read_sketches(_split([copied(0), b"broken", copied(1)]), range(3))
    assert sketches.places == [0, 2]
    assert list(reader.broken) == [1]


@pytest.mark.parametrize("cells", [5, 1 << 23])
def test_nearest_vectors_in_chunks(cells, monkeypatch):
    monkeypatch.setattr(near_copies, "_CELLS", cells)
    rng = torch.Generator().manual_seed(1)
    held, train = torch.randn(9, 4, generator=rng), torch.randn(11, 4, generator=rng)
    cosine, place = nearest_vectors(held, train)
    assert place.tolist() == (held @ train.T).argmax(1).tolist()
    np.testing.assert_allclose(cosine, (held @ train.T).amax(1).numpy(), rtol=1e-6)
    own = torch.arange(0, 11, 2)
    others = (train[own] @ train.T).scatter(1, own[:, None], -torch.inf)
    assert nearest_vectors(train[own], train, own)[1].tolist() == others.argmax(1).tolist()


def test_pairs_of_miniatures_are_compared_as_by_the_plain_twin():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (60, 3, 16, 16))
    moved = base + rng.normal(0, 1, base.shape) * np.linspace(0, 20, 60)[:, None, None, None] + rng.integers(-20, 20)
    moved[::3] = rng.integers(0, 256, moved[::3].shape) * rng.random((20, 1, 1, 1))
    pairs = [np.clip(x, 0, 255).astype(np.uint8) for x in (base, moved)]
    a, b = (torch.from_numpy(x).flatten(1) for x in pairs)
    limit, apart = near_copies.compare_miniatures(a, b, 0.2)
    want = [plain.apart(x.astype(float), y.astype(float), 0.2) for x, y in zip(*pairs, strict=True)]
    near = np.isfinite(want)
    assert (apart <= limit).tolist() == near.tolist()
    assert 5 < near.sum() < 50
    # both in float64, from sums in another order
    np.testing.assert_allclose(apart.numpy()[near], np.array(want)[near], atol=1e-9)
    shade_a, shade_b = near_copies.shades(a), near_copies.shades(b)
    able = near_copies.may_be_near(shade_a, shade_b, 0.2).numpy()
    assert able[near].all()
    assert not able.all()
    known = near_copies.compare_miniatures(a, b, 0.2, shade_a, shade_b)
    assert torch.equal(known[0], limit)
    assert torch.equal(known[1], apart)


def test_equal_miniatures_are_no_distance_apart():
    white, grey = (torch.full((1, 768), v, dtype=torch.uint8) for v in (255, 128))
    noise = torch.randint(0, 256, (1, 768), dtype=torch.uint8)
    for x in (white, grey, noise):
        limit, apart = near_copies.compare_miniatures(x, x, 0.0)
        assert float(apart) < 1e-6 < float(limit)
        assert near_copies.may_be_near(near_copies.shades(x), near_copies.shades(x), 0.0).all()
