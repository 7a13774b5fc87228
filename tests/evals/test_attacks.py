import pytest
import torch

from diptych.evals.attacks import Attack, attack_loss, chosen_right, pgd
from tests.reference import pgd as plain


def _problem(seed=0, n=6, texts=5):
    g = torch.Generator().manual_seed(seed)
    # in float64, so that two ways to the same gradient agree on its sign
    first, second = (torch.randn(*s, generator=g, dtype=torch.float64) for s in ((8, 3 * 16), (texts, 8)))

    def logits(x):
        return torch.tanh((x / 255 - 0.5).flatten(1) @ first.T) @ second.T * 3

    images = torch.randint(0, 256, (n, 3, 4, 4), generator=g).double()
    right = torch.zeros(n, texts, dtype=torch.bool)
    right[torch.arange(n), logits(images).argmax(1)] = True
    right[0, 2] = True  # one that has two right texts
    start = 2 * torch.rand(images.shape, generator=g, dtype=torch.float64) - 1
    return logits, images, right, start


@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
@pytest.mark.parametrize("eps", [2.0, 12.0])
def test_it_is_the_plain_loop(loss, eps):
    logits, images, right, start = _problem()
    found = pgd(logits, images, right, Attack(eps, 7, 0.3, loss), start)
    for i in range(len(images)):
        texts = right[i].nonzero()[:, 0].tolist()
        held, last, points = plain.pgd(logits, images[i] / 255, texts, eps / 255, 7, 0.3, start[i], loss)
        assert (bool(found.right[i]), bool(found.right_last[i])) == (held, last)
        losses = torch.stack([attack_loss(logits(255 * p[None]), right[i : i + 1], loss)[0] for p in points])
        best = 255 * points[int(losses.argmax())]
        torch.testing.assert_close(found.images[i], best, atol=1e-9, rtol=0)


def test_a_ball_of_no_size_changes_nothing():
    logits, images, right, start = _problem()
    right = right.roll(1, 0)
    found = pgd(logits, images, right, Attack(0.0, 5, 0.25, "margin"), start)
    assert torch.equal(found.images, images)
    assert torch.equal(found.right, chosen_right(logits(images), right))
    assert torch.equal(found.right_last, found.right)


def test_changes_stay_in_the_ball_and_among_pixels():
    logits, images, right, start = _problem()
    images[:, :, 0], images[:, :, 1] = 0, 255
    found = pgd(logits, images, right, Attack(4.0, 10, 0.5, "cross_entropy"), start)
    away = (found.images - images).abs()
    assert away.max() <= 4
    assert away.mean() > 1
    assert 0 <= found.images.min() <= found.images.max() <= 255


@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_more_steps_never_help_the_model(loss):
    logits, images, right, start = _problem(3, n=200)
    right = torch.zeros_like(right)
    right[torch.arange(200), logits(images).argmax(1)] = True
    shares = [
        float(pgd(logits, images, right, Attack(6.0, steps, 0.25, loss), start).right.float().mean())
        for steps in (1, 3, 10, 20)
    ]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < shares[0] < 1
    stronger = pgd(logits, images, right, Attack(12.0, 20, 0.25, loss), start).right.float().mean()
    assert stronger < shares[-1]


def test_losses_by_hand():
    logits = torch.tensor([[1.0, 3.0, 2.0]])
    right = torch.tensor([[True, False, True]])
    assert attack_loss(logits, right, "margin").item() == 1
    e = torch.tensor([1.0, 3.0, 2.0]).exp()
    expected = -torch.log((e[0] + e[2]) / e.sum())
    torch.testing.assert_close(attack_loss(logits, right, "cross_entropy")[0], expected)
    assert not chosen_right(logits, right).item()
