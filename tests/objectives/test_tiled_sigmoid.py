import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from diptych.objectives.tiled_sigmoid import SigmoidPairs
from diptych.objectives.tiles import TileSize, Wanted
from tests.objectives.tile_cases import Case, LargestTensor, cases
from tests.reference import dense_contrastive as dense

ALL = Wanted(True, True, True)


@settings(max_examples=50, deadline=None)
@given(cases(), st.sampled_from(["mask", "positives", "ignore"]), st.sampled_from([0.0, -10.0, 2.5]))
def test_tiles_of_any_size_have_value_and_gradient_of_the_whole_matrix(case: Case, duplicates, bias):
    leaves = case.leaves(case.scale, bias)
    positive, negative = dense.sigmoid(*leaves, case.same(), duplicates)
    (positive + negative).backward()
    found = SigmoidPairs(case.pairs(bias), duplicates).compute(ALL)
    # logits are rounded at 2^-24 of the largest of them; n terms of a row add up
    largest = 1 + abs(bias) + case.scale * float(case.image.norm(dim=1).max() * case.text.norm(dim=1).max())
    for ours, theirs in ((found.positive, positive), (found.negative, negative)):
        assert abs(ours - theirs) <= 4e-6 * (1 + abs(theirs)) + 4e-7 * largest * len(case.image)
    for ours, leaf in zip((found.image, found.text, found.scale, found.bias), leaves, strict=True):
        error = (ours.double() - leaf.grad).abs().max()
        assert error <= 4e-6 * largest * (1 + leaf.grad.abs().max()), error
    only_value = SigmoidPairs(case.pairs(bias), duplicates).compute(Wanted(False, False, False))
    assert torch.equal(only_value.negative, found.negative)
    assert only_value[2:] == (None, None, None, None)


@pytest.mark.parametrize("wanted", [Wanted(True, False, True), Wanted(False, True, True), Wanted(False, False, True)])
def test_a_frozen_side_is_left_out_and_changes_nothing_else(wanted):
    torch.manual_seed(0)
    image, text = normalize(torch.randn(2, 11, 6), dim=-1)
    case = Case(image, text, [torch.arange(11) // 2], 20.0, TileSize(4, 5, 0))
    whole, part = (SigmoidPairs(case.pairs(-3.0), "positives").compute(w) for w in (ALL, wanted))
    for name in ("image", "text"):
        theirs = getattr(part, name)
        assert (theirs is not None) == getattr(wanted, name)
        assert theirs is None or torch.equal(theirs, getattr(whole, name))
    torch.testing.assert_close(part.scale, whole.scale, rtol=1e-5, atol=1e-6)  # summed the other way round
    assert torch.equal(part.bias, whole.bias)


@pytest.mark.parametrize("duplicates", ["mask", "positives"])
def test_nothing_is_larger_than_a_tile_or_the_vectors(duplicates):
    n, e, size = 700, 8, TileSize(64, 48, 0)
    image, text = normalize(torch.randn(2, n, e), dim=-1)
    with LargestTensor() as watch:
        case = Case(image, text, [torch.arange(n) // 2, torch.arange(n) % 600], 10.0, size)
        SigmoidPairs(case.pairs(-5.0), duplicates).compute(ALL)
    assert watch.elements == max(n * e, size.rows * size.columns)
