import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from diptych.objectives.same_pairs import SamePairs
from diptych.objectives.tiled_softmax import InfoNce
from diptych.objectives.tiles import Pairs, TileSize, Wanted
from tests.objectives.tile_cases import Case, LargestTensor, cases
from tests.reference import dense_contrastive as dense

ALL = Wanted(True, True, True)


def close(found, expected, largest):
    """Logits are rounded at 2^-24 of the largest of them, and so are exponents: a relative error of that size stays."""
    error = (found.double() - expected).abs().max()
    assert error <= 4e-6 * (1 + largest) * (1 + expected.abs().max()), error


@settings(max_examples=60, deadline=None)
@given(cases(), st.sampled_from(["mask", "positives", "ignore"]), st.sampled_from([0.0, 0.1]))
def test_tiles_of_any_size_have_value_and_gradient_of_the_whole_matrix(case: Case, duplicates, smoothing):
    image, text, scale = case.leaves(case.scale)
    i2t, t2i = dense.info_nce(image, text, scale, case.same(), duplicates, smoothing)
    ((i2t + t2i) / 2).backward()
    found = InfoNce(case.pairs(), duplicates, smoothing).compute(ALL)
    largest = case.scale * float(case.image.norm(dim=1).max() * case.text.norm(dim=1).max())
    for ours, theirs in ((found.i2t, i2t), (found.t2i, t2i)):
        close(ours, theirs.detach(), largest)
    close(found.image, image.grad, largest)
    close(found.text, text.grad, largest)
    close(found.scale, scale.grad, largest)
    only_value = InfoNce(case.pairs(), duplicates, smoothing).compute(Wanted(False, False, False))
    assert torch.equal(only_value.i2t, found.i2t)
    assert only_value[2:] == (None, None, None)


@pytest.mark.parametrize("wanted", [Wanted(True, False, True), Wanted(False, True, True), Wanted(False, False, True)])
@pytest.mark.parametrize("kept", [0, 10**6])
def test_a_frozen_side_is_left_out_and_changes_nothing_else(wanted, kept):
    torch.manual_seed(0)
    image, text = normalize(torch.randn(2, 11, 6), dim=-1)
    case = Case(image, text, [torch.arange(11) // 2], 20.0, TileSize(4, 5, kept))
    whole, part = (InfoNce(case.pairs(), "mask", 0.1).compute(w) for w in (ALL, wanted))
    for name in ("image", "text"):
        theirs = getattr(part, name)
        assert (theirs is not None) == getattr(wanted, name)
        assert theirs is None or torch.equal(theirs, getattr(whole, name))
    torch.testing.assert_close(part.scale, whole.scale, rtol=1e-5, atol=1e-6)  # summed the other way round


def test_float64_agrees_to_float64():
    torch.manual_seed(0)
    image, text = 3 * torch.randn(2, 17, 4, dtype=torch.float64)
    case = Case(image, text, [torch.arange(17) % 5, torch.arange(17) // 2], 30.0, TileSize(3, 7, 0))
    for duplicates in ("mask", "positives"):
        a, b, scale = case.leaves(30.0)
        sum(dense.info_nce(a, b, scale, case.same(), duplicates, 0.2)).backward()
        found = InfoNce(case.pairs(), duplicates, 0.2).compute(ALL)
        for ours, theirs in ((found.image, a), (found.text, b), (found.scale, scale)):
            torch.testing.assert_close(2 * ours, theirs.grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("duplicates", ["mask", "positives"])
def test_nothing_is_larger_than_a_tile_or_the_vectors(duplicates):
    n, e, size = 700, 8, TileSize(64, 48, 0)
    image, text = normalize(torch.randn(2, n, e), dim=-1)
    ids = [torch.arange(n) // 2, torch.arange(n) % 600]
    with LargestTensor() as watch:
        pairs = Pairs(image, text, torch.tensor(10.0), None, SamePairs(ids, 0), 0, n, size)
        InfoNce(pairs, duplicates, 0.1).compute(ALL)
    assert watch.elements == max(n * e, size.rows * size.columns)


def test_what_is_kept_is_bounded():
    torch.manual_seed(0)
    image, text = normalize(torch.randn(2, 50, 4), dim=-1)
    for kept, expected in ((0, 0), (99, 0), (350, 300), (10**4, 2500)):
        case = Case(image, text, [torch.arange(50)], 10.0, TileSize(10, 10, kept))
        loss = InfoNce(case.pairs(), "ignore", 0.0)
        loss._first_pass(keep=True)
        assert sum(x.numel() for x in loss.kept) == expected


@pytest.mark.gpu
@pytest.mark.parametrize("duplicates", ["mask", "positives"])
def test_a_gpu_agrees_and_is_never_waited_for(duplicates):
    torch.manual_seed(0)
    image, text = normalize(torch.randn(2, 5000, 64), dim=-1).cuda()
    ids = [torch.arange(5000).cuda() // 2, torch.arange(5000).cuda() % 4900]
    case = Case(image, text, ids, 50.0, TileSize(4096, 4096, 2**24))
    torch.cuda.set_sync_debug_mode("error")
    try:
        pairs = Pairs(image, text, torch.full((), 50.0, device="cuda"), None, SamePairs(ids, 0), 0, 5000, case.size)
        found = InfoNce(pairs, duplicates, 0.1).compute(ALL)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    cpu = Case(image.cpu(), text.cpu(), [x.cpu() for x in ids], 50.0, TileSize(1024, 1024, 0))
    expected = InfoNce(cpu.pairs(), duplicates, 0.1).compute(ALL)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-4, atol=1e-5)
