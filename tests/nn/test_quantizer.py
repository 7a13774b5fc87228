"""The codebook against loops, in pieces, after restarts; and that what no one chooses comes back."""

import pytest
import torch
import torch.nn.functional as F

from diptych.nn.quantizer import USED_WITHIN, VectorQuantizer, VectorQuantizerConfig, kmeans, perplexity
from tests.reference import quantizer as plain

KINDS = [
    {"update": "gradient"},
    {"update": "gradient", "legacy_beta": True},
    {"update": "ema"},
    {"update": "ema", "distance": "cosine"},
    {"update": "gradient", "distance": "cosine"},
]


def small(**settings) -> VectorQuantizer:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(VectorQuantizerConfig(codes=6, width=3, **settings))
    quantizer.codebook.data.copy_(quantizer.scaled(torch.randn(6, 3)))
    if quantizer.config.update == "ema":
        quantizer.ema_sum.copy_(quantizer.codebook)
    return quantizer.train()


def some(b: int = 4, n: int = 5) -> torch.Tensor:
    return torch.randn(b, n, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_it_is_what_loops_find_in_value_and_gradient(kind):
    quantizer, wanted = small(**kind), torch.randn(4, 5, 3)
    results = []
    for fast in (True, False):
        z = some().requires_grad_()
        quantizer.zero_grad()
        scaled = quantizer.scaled(z)
        if fast:
            vectors, codes, loss = quantizer(z)
        else:
            c = quantizer.config
            book = quantizer.scaled(quantizer.codebook)
            vectors, codes, loss = plain.quantize(scaled, book, c.beta, c.update, c.legacy_beta)
        ((vectors * wanted).sum() + (loss * torch.arange(1.0, 5.0)).sum()).backward()
        grads = [z.grad] + [p.grad.clone() for p in quantizer.parameters()]
        results.append((vectors, codes, loss, *grads))
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, atol=2e-6, rtol=1e-5)  # sums in another order


def test_vectors_are_codes_and_their_gradient_goes_straight_through():
    quantizer, z = small(), some().requires_grad_()
    vectors, codes, _ = quantizer(z)
    torch.testing.assert_close(vectors, quantizer.vectors(codes), atol=1e-6, rtol=0)
    vectors.sum().backward()
    assert torch.equal(z.grad, torch.ones_like(z))
    assert torch.equal(codes, quantizer.nearest(z))


def test_each_term_of_the_loss_moves_its_own_side():
    z, gradients = some().requires_grad_(), {}
    for legacy in (False, True):
        quantizer = small(beta=0.25, legacy_beta=legacy)
        gradients[legacy] = torch.autograd.grad(quantizer(z).loss.sum(), [quantizer.codebook, z])
    for own, late in ((0, 4.0), (1, 0.25)):  # beta weighs the commitment; by the old mistake the codes' own loss
        torch.testing.assert_close(gradients[False][own], gradients[True][own] * late)


def test_the_moving_average_is_what_loops_find():
    quantizer, z = small(update="ema", decay=0.7), some()
    wanted = [quantizer.codebook.clone(), quantizer.ema_count.clone(), quantizer.ema_sum.clone()]
    for shift in (0.0, 0.5):
        codes = quantizer(z + shift).codes
        wanted = plain.moved(*wanted, (z + shift).flatten(0, 1), codes.flatten(), 0.7)
        quantizer.after_step()
        for found, w in zip((quantizer.codebook, quantizer.ema_count, quantizer.ema_sum), wanted, strict=True):
            torch.testing.assert_close(found, w)


def test_the_moving_average_of_unit_vectors_is_what_loops_find():
    quantizer, z = small(update="ema", distance="cosine", decay=0.7), some()
    before, codes = quantizer.codebook.clone(), quantizer(z).codes
    quantizer.after_step()
    wanted = plain.moved_on_the_sphere(before, F.normalize(z, dim=-1).flatten(0, 1), codes.flatten(), 0.7)
    torch.testing.assert_close(quantizer.codebook, wanted)


@pytest.mark.parametrize("kind", [{"update": "ema"}, {"update": "gradient"}, {"update": "ema", "distance": "cosine"}])
def test_pieces_are_the_whole(kind):
    whole, pieces = (small(**kind, kmeans=True, revive_after=2) for _ in range(2))
    for step in range(5):
        z = 3 * some() + step
        whole(z)
        for piece in z.split(1):
            pieces(piece)
        for quantizer in (whole, pieces):
            quantizer.after_step()
            quantizer.after_step()  # twice is once
        for (name, a), b in zip(whole.state_dict().items(), pieces.state_dict().values(), strict=True):
            torch.testing.assert_close(a, b, msg=lambda m, name=name: f"{name}: {m}")
    assert whole.steps == 5


def test_what_does_not_train_notes_nothing():
    quantizer = small(update="ema", kmeans=True).eval()
    before = {n: t.clone() for n, t in quantizer.state_dict().items()}
    vectors, codes, _ = quantizer(some())
    torch.testing.assert_close(vectors, quantizer.vectors(codes), atol=1e-6, rtol=0)
    quantizer.after_step()
    quantizer.train()(some())
    quantizer.forget_noted()  # a pass that only measured
    quantizer.after_step()
    assert all(torch.equal(t, before[n]) for n, t in quantizer.state_dict().items())


def test_kmeans_is_lloyds():
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(kmeans(x, 5, rounds=4), plain.kmeans(x, 5, 4))
    unit = kmeans(F.normalize(x, dim=1), 3, cosine=True)
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(3))
    assert kmeans(x[:2], 5).shape == (5, 2)


def test_before_kmeans_nothing_is_replaced_and_after_it_codes_lie_among_vectors():
    quantizer = small(kmeans=True)
    z = torch.cat([some(), some() + 100]).requires_grad_()
    vectors, _, loss = quantizer(z)
    assert torch.equal(vectors, z)
    assert not loss.any()
    (vectors.sum() + loss.sum()).backward()
    assert not quantizer.codebook.grad.any()  # it takes part, as DDP wants it
    quantizer.after_step()
    assert quantizer.begun
    far = quantizer.codebook.mean(1) > 50
    assert far.any()
    assert not far.all()
    assert (quantizer(z).vectors - z).norm(dim=-1).max() < 10


def test_idle_codes_are_put_where_vectors_are_alike_wherever_it_goes_on():
    quantizer, other = (small(update="ema", revive_after=3) for _ in range(2))
    for q in (quantizer, other):
        q.codebook[3:] += 1000
        q.ema_sum.copy_(q.codebook)
    for step in range(4):
        if step == 2:  # as after a restart
            other.load_state_dict({n: t.clone() for n, t in quantizer.state_dict().items()})
        for q in (quantizer, other) if step > 1 else (quantizer,):
            q(some() + step)
            q.after_step()
    assert (quantizer.codebook < 100).all()
    assert all(torch.equal(t, other.state_dict()[n]) for n, t in quantizer.state_dict().items())
    rows = (some() + 2).flatten(0, 1)
    fresh = small(update="ema", revive_after=3)
    fresh.seen.idle.fill_(3)
    fresh.steps.fill_(2)
    fresh.codebook[3:] += 1000
    fresh(some() + 2)
    fresh.after_step()
    for e in fresh.codebook[3:]:
        assert (rows - e).norm(dim=1).min() < 1e-6


def test_use_and_perplexity():
    quantizer = small()
    assert (quantizer.seen.use(), quantizer.seen.perplexity()) == (0, 0)
    codes = quantizer(quantizer.codebook.detach()[None, :3].repeat(2, 1, 1)).codes
    assert codes.unique().tolist() == [0, 1, 2]
    quantizer.after_step()
    assert quantizer.seen.use() == pytest.approx(0.5)
    assert quantizer.seen.perplexity() == pytest.approx(3.0)
    quantizer.seen.idle += USED_WITHIN
    assert quantizer.seen.health() == {"codebook_use": 0.0, "perplexity": pytest.approx(3.0)}
    counts = torch.tensor([5.0, 0, 1, 2])
    assert perplexity(counts) == pytest.approx(plain.perplexity(counts))


def test_what_is_not_finite_does_not_stay():
    quantizer, z = small(update="ema", kmeans=True, revive_after=1), some()
    bad = torch.full_like(z, float("nan"))
    quantizer(bad)
    quantizer.after_step()
    assert not quantizer.begun
    for given in (z, bad, z):
        quantizer(given)
        quantizer.after_step()
    assert quantizer.codebook.isfinite().all()
    assert quantizer.begun


def test_many_vectors_are_compared_some_at_a_time(monkeypatch):
    quantizer, z = small(), some(40)
    whole = quantizer.nearest(z)
    monkeypatch.setattr("diptych.nn.quantizer.DISTANCES", 20)
    assert torch.equal(quantizer.nearest(z), whole)
