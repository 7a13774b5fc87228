"""Hard negatives: drawn by similarity, never barred; the loss counts what could be drawn."""

import math

import pytest
import torch

from diptych.nn.draws import uniform
from diptych.objectives.matching import CHANCE, as_read, chosen_texts, draw_negatives, hard_negatives, matching_loss
from tests.objectives.tiny_model import TinyConfig


def test_negatives_are_drawn_by_similarity_and_never_barred():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).repeat(40_000, 1)
    barred = torch.tensor([[False, True, False, False]]).expand(40_000, -1)
    draws = uniform(torch.arange(40_000), "negatives", 1)[:, 0]
    chosen, there = draw_negatives(logits, barred, draws)
    weights = torch.tensor([2.0, 1.0, 0.0, -1.0]).softmax(0) + 1e-4
    weights[1] = 0
    shares = torch.bincount(chosen, minlength=4) / 40_000
    torch.testing.assert_close(shares, weights / weights.sum(), atol=0.01, rtol=0)
    assert shares[1] == 0
    assert there.all()
    edge = torch.tensor([0.0, 1 - 2**-24])
    ends, _ = draw_negatives(logits[:2], torch.tensor([[True, False, False, True]]).expand(2, -1), edge)
    assert ends.tolist() == [1, 2]


def test_three_rows_a_pair_and_a_pair_without_wrong_ones_counts_once():
    similar = torch.zeros(3, 3)
    same = torch.zeros(3, 3, dtype=torch.bool)
    same[0, 1:] = True  # the first pair has none that is wrong for it
    judged = hard_negatives(similar, similar, same, torch.rand(3, 2))
    assert judged.labels.tolist() == [1] * 3 + [0] * 6
    assert judged.image[:3].tolist() == judged.text[:3].tolist() == judged.text[3:6].tolist() == [0, 1, 2]
    assert judged.image[6:].tolist() == [0, 1, 2]
    wrong = torch.stack([judged.image[3:6], judged.text[6:]])[:, 1:]
    assert (wrong != torch.tensor([1, 2])).all()
    assert judged.counts.tolist() == [1, 1, 1, 0, 1, 1, 0, 1, 1]
    logits = torch.randn(9, 2)
    loss, right = matching_loss(logits, judged)
    each = torch.nn.functional.cross_entropy(logits, judged.labels, reduction="none")
    assert loss.item() == pytest.approx(float((each * judged.counts).sum() / 7), abs=1e-6)
    assert 0 <= right.item() <= 1


def test_chosen_texts_are_cut_to_the_longest_and_in_the_models_precision():
    model, lengths = TinyConfig().build(10), torch.tensor([1, 3, 2])
    rows = torch.randn(3, 5, 2).bfloat16().requires_grad_()
    found, sizes = chosen_texts(rows, lengths, torch.tensor([2, 0, 2]), model)
    assert sizes.tolist() == [2, 1, 2]
    torch.testing.assert_close(found, rows.float()[[2, 0, 2], :2])
    found.sum().backward()
    assert rows.grad.sum((1, 2)).tolist() == [4, 0, 8]
    with torch.autocast("cpu", torch.bfloat16):
        assert as_read(rows, model).dtype == torch.bfloat16
    tokens, _ = chosen_texts(torch.arange(15).view(3, 5), lengths, torch.tensor([1]), model)
    assert tokens.tolist() == [[5, 6, 7]]


def test_knowing_nothing_costs_the_entropy_of_one_in_three():
    judged = hard_negatives(torch.zeros(4, 4), torch.zeros(4, 4), None, torch.rand(4, 2))
    loss, _ = matching_loss(torch.tensor([[math.log(2), 0.0]]).expand(12, -1), judged)
    assert loss.item() == pytest.approx(CHANCE, abs=1e-6)
