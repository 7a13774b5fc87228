import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diptych.core.errors import DataError
from diptych.nn import mask
from diptych.nn.packing import STEP, WASTE, Packing, best_fit, host_lengths, pack, to_longest
from diptych.nn.pool import masked_mean, take_first, take_last

CPU = torch.device("cpu")
FORMS = ["rows", "flat"]
LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=40)


def packed(lengths: list[int], width: int, form: str) -> tuple[Packing | None, Tensor]:
    tokens = torch.arange(1, len(lengths) * width + 1).view(len(lengths), width)  # each number says its own place
    return pack(torch.tensor(lengths), width, CPU, form), tokens


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(0, 3))
def test_every_token_stands_at_one_place_and_comes_back(form: str, lengths: list[int], extra: int) -> None:
    width = max(1, *lengths) + extra
    packing, tokens = packed(lengths, width, form)
    if packing is None:
        return
    real = torch.arange(width) < torch.tensor(lengths)[:, None]
    x = packing.take(tokens)[:, :, None].double()
    assert torch.equal(packing.reals(x)[:, 0], tokens[real].double())
    assert torch.equal(packing.unpack(packing.reals(x))[:, :, 0], torch.where(real, tokens, 0).double())
    assert torch.equal(packing.layout.positions().flatten()[_places(packing)], real.nonzero()[:, 1])
    assert torch.equal(packing.layout.segments().flatten()[_places(packing)], real.nonzero()[:, 0])
    assert int((packing.layout.segments() < len(lengths)).sum()) == sum(lengths)  # what is left is filling
    assert x.shape[0] * x.shape[1] < len(lengths) * max(lengths)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=40, deadline=None)
@given(LENGTHS)
def test_pools_equal_those_of_padded_rows_in_value_and_gradient(form: str, lengths: list[int]) -> None:
    n, width = torch.tensor(lengths), max(1, *lengths)
    packing = pack(n, width, CPU, form)
    if packing is None:
        return
    matrix = torch.randn(len(n), width, 3, requires_grad=True)
    x = matrix.flatten(0, 1)[packing.source]
    pairs = [
        (packing.firsts(x), take_first(matrix, n)),
        (packing.lasts(x), take_last(matrix, n)),
        (packing.means(packing.reals(x)), masked_mean(matrix, n)),
    ]
    for ours, plain in pairs:  # sums of up to 40 numbers in another order
        torch.testing.assert_close(ours, plain, atol=1e-6, rtol=1e-5)
        toward = torch.randn_like(plain)
        a, b = (torch.autograd.grad((y * toward).sum(), matrix, retain_graph=True)[0] for y in (ours, plain))
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("is_causal", [True, False])
def test_a_token_sees_its_own_text_only(is_causal: bool) -> None:
    lengths = [5, 1, 9, 3, 3, 2, 0, 30]
    packing, _ = packed(lengths, 30, "rows")
    assert packing is not None
    text, place = packing.layout.segments(), packing.layout.positions()
    plan = packing.mask(is_causal)
    assert plan.allowed is not None
    assert plan.sees is None
    assert bool(plan.allowed.any(-1).all())
    for r, i, j in np.ndindex(*text.shape, text.shape[1]):
        same, before = text[r, i] == text[r, j], place[r, j] <= place[r, i]
        assert plan.allowed[r, 0, i, j] == bool(same & (before if is_causal else True))
    assert plan.samples == len(lengths)
    assert torch.equal(plan.sample, text.clamp(max=len(lengths) - 1))


def test_a_flat_row_needs_no_matrix_but_bounds() -> None:
    packing, _ = packed([5, 1, 0, 9], 9, "flat")
    assert packing is not None
    assert packing.source.shape == (1, 15)
    for is_causal in (True, False):
        plan = packing.mask(is_causal)
        assert plan.allowed is None
        assert plan.is_causal == is_causal
        assert plan.runs is not None
        assert plan.runs.bounds.dtype == torch.int32
        assert plan.runs.bounds.tolist() == [0, 5, 6, 6, 15]
        assert plan.runs.longest == 16
    layout = packing.layout
    rows, _ = packed([5, 1, 0, 9], 9, "rows")  # a rule that the bounds do not serve is still a matrix
    assert rows is not None
    assert mask.causal().plan(layout).allowed is not None
    assert (mask.block_diagonal() | mask.causal()).plan(layout).allowed is not None
    assert (mask.block_diagonal() & mask.padding()).plan(layout).runs is not None
    assert (mask.block_diagonal() & mask.keys(mask.IMAGE)).plan(layout).allowed is not None


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(40, 80))
def test_best_fit_overlaps_nowhere_and_wastes_less_than_half(lengths: list[int], size: int) -> None:
    sizes = np.array(lengths, np.int64)
    start, rows = best_fit(sizes, size)
    held = np.zeros(rows * size, int)
    for s, n in zip(start.tolist(), lengths, strict=True):
        held[s : s + n] += 1
        assert n == 0 or s // size == (s + n - 1) // size
    assert held.max(initial=0) <= 1
    assert rows <= 2 * sizes.sum() / size + 1  # no two rows would go into one: a text goes where there is room


def test_captions_leave_next_to_nothing_empty() -> None:
    """Lengths of short captions, 3 to 21 tokens, most 4 to 6, as a dataset of small pictures has them."""
    sizes = np.random.default_rng(0).choice(
        [3, 4, 5, 6, 7, 9, 12, 21], 256, p=[0.15, 0.25, 0.2, 0.2, 0.1, 0.06, 0.03, 0.01]
    )
    packing = pack(torch.from_numpy(sizes), 24, CPU)
    assert packing is not None
    places = packing.source.numel()
    assert places * (1 - WASTE) <= sizes.sum()
    assert packing.source.shape[1] % STEP == 0
    assert places < 0.35 * 256 * sizes.max()


@pytest.mark.parametrize("lengths", [[], [0, 0], [7], [4, 4, 4], [16] * 8 + [15]])
def test_nothing_is_packed_where_nothing_is_gained(lengths: list[int]) -> None:
    assert pack(torch.tensor(lengths, dtype=torch.int64), 20, CPU) is None


def test_one_long_text_among_short_ones_makes_rows_of_its_length() -> None:
    packing = pack(torch.tensor([77] + [5] * 30), 77, CPU)
    assert packing is not None
    assert packing.source.shape == (3, 80)


def test_shapes_follow_on_a_device_without_content() -> None:
    packing = pack(torch.tensor([5, 1, 9, 3, 3]), 9, torch.device("meta"))
    assert packing is not None
    x = torch.empty(*packing.source.shape, 4, device="meta")
    assert packing.lasts(x).shape == packing.means(packing.reals(x)).shape == (5, 4)
    assert packing.mask(True).allowed.is_meta


def test_lengths_are_checked() -> None:
    with pytest.raises(DataError, match=r"lengths must lie in 0..4, the width of the token matrix; got 1 to 5"):
        host_lengths(torch.tensor([1, 5]), 4)
    with pytest.raises(DataError, match="got -1 to 2"):
        host_lengths(torch.tensor([-1, 2]), 4)
    assert host_lengths(torch.zeros(0, dtype=torch.int64), 4).shape == (0,)


def test_texts_are_cut_to_the_longest() -> None:
    tokens, lengths = to_longest(torch.arange(8).view(2, 4), torch.tensor([1, 3]))
    assert tokens.tolist() == [[0, 1, 2], [4, 5, 6]]
    assert lengths.tolist() == [1, 3]
    assert to_longest(torch.zeros(0, 4, dtype=torch.int64), lengths[:0])[0].shape == (0, 1)


def _places(packing: Packing) -> Tensor:
    return torch.arange(packing.source.numel()) if packing.places is None else packing.places
