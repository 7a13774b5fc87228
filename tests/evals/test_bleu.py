import math

import numpy as np
import pytest

from diptych.evals.bleu import bleu_counts, bleu_estimate, bleu_of

CLUSTERS = np.arange(3)


def test_by_hand():
    counts = bleu_counts(["the the the the the"], [["the cat is on the mat", "there is a cat on the mat here now"]])
    assert counts.tolist() == [[2, 0, 0, 0, 5, 4, 3, 2, 5, 6]]  # matches are clipped; six words are closer to five
    assert bleu_of(counts)[0] == 0
    counts = bleu_counts(["a b c d e"], [["a b c d x y"]])
    expected = math.exp(1 - 6 / 5) * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert bleu_of(counts)[0] == pytest.approx(expected)
    assert bleu_of(bleu_counts(["", "a b c d"], [["a b"], ["a b c d"]]).sum(0, keepdims=True))[0] < 1


def test_the_closest_reference_counts_and_of_two_the_shorter():
    assert bleu_counts(["a b c"], [["a b c d", "a b"]])[0, -1] == 2


def test_counts_are_added_before_they_are_divided():
    said, true = ["a b c d e f", "x y"], [["a b c d e f"], ["x z"]]
    whole = bleu_counts(said, true).sum(0, keepdims=True)
    assert bleu_of(whole)[0] == pytest.approx((7 / 8 * 5 / 6 * 4 / 4 * 3 / 3) ** 0.25)


def test_the_interval_is_over_images():
    said = ["a b c d e", "a b c d x", "f g h i j"]
    e = bleu_estimate(bleu_counts(said, [["a b c d e"]] * 2 + [["f g h i z"]]), CLUSTERS, 0.1)
    assert (e.n, e.chance) == (3, 0.1)
    assert e.low < e.value < e.high <= 1
    assert bleu_estimate(bleu_counts(said, [["a b c d e"]] * 2 + [["f g h i z"]]), np.array([0, 0, 1])).n == 2
    perfect = bleu_estimate(bleu_counts(said, [[s] for s in said]), CLUSTERS)
    assert perfect.value == 1
    assert perfect.low < 1, "three images prove nothing"
