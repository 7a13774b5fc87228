import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diptych.nn.packing import Packing
from diptych.nn.pool import masked_mean, take_first, take_last
from diptych.nn.prefix_tree import ROW, pack_tree

TEXTS = st.lists(st.lists(st.integers(0, 2), max_size=7), min_size=2, max_size=60)


def packed(texts: list[list[int]], extra: int = 0) -> tuple[Packing | None, Tensor, Tensor]:
    """Texts as a padded matrix, whose padding is an id that also occurs, and their packing."""
    width = max([1, *map(len, texts)]) + extra
    tokens, lengths = torch.ones(len(texts), width, dtype=torch.int64), torch.tensor([len(t) for t in texts])
    for row, ids in zip(tokens, texts, strict=True):
        row[: len(ids)] = torch.tensor(ids, dtype=torch.int64)
    return pack_tree(tokens, lengths), tokens, lengths


@settings(max_examples=150, deadline=None)
@given(TEXTS, st.integers(0, 2))
def test_every_token_sees_exactly_what_stands_before_it_in_its_text(texts: list[list[int]], extra: int) -> None:
    packing, tokens, lengths = packed(texts, extra)
    if packing is None:
        return
    plan = packing.mask(True)
    assert plan.allowed is not None
    assert packing.places is not None
    allowed, ids = plan.allowed[:, 0], packing.take(tokens).flatten()
    size, positions = allowed.shape[-1], packing.layout.positions().flatten()
    for text, places in zip(texts, packing.places.split(lengths.tolist()), strict=True):
        assert ids[places].tolist() == text
        assert positions[places].tolist() == list(range(len(text)))
        for i, place in enumerate(places.tolist()):
            seen = allowed[place // size, place % size].nonzero()[:, 0] + place // size * size
            assert seen.tolist() == places[: i + 1].tolist()
    assert bool(allowed.any(-1).all())  # filling sees something, too
    assert packing.source.numel() < len(texts) * max(map(len, texts))


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.integers(0, 2))
def test_pools_equal_those_of_padded_rows_in_value_and_gradient(texts: list[list[int]], extra: int) -> None:
    packing, tokens, lengths = packed(texts, extra)
    if packing is None:
        return
    weights = torch.randn(3, 7, 2, requires_grad=True)  # what a causal tower could give: a function of the beginning
    columns = torch.arange(tokens.shape[1]).clamp(max=6)
    matrix = weights[tokens, columns].cumsum(1)
    x = _along(packing, weights[packing.take(tokens), packing.layout.positions()])
    real = columns.new_tensor(range(tokens.shape[1])) < lengths[:, None]
    for ours, plain in [
        (packing.firsts(x), take_first(matrix, lengths)),
        (packing.lasts(x), take_last(matrix, lengths)),
        (packing.means(packing.reals(x)), masked_mean(matrix, lengths)),
        (packing.unpack(packing.reals(x)), torch.where(real[:, :, None], matrix, 0)),
    ]:  # sums of a few numbers in another order
        torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
        toward = torch.randn_like(plain)
        a, b = (torch.autograd.grad((y * toward).sum(), weights, retain_graph=True)[0] for y in (ours, plain))
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def _along(packing: Packing, x: Tensor) -> Tensor:
    """The sum of what each token sees."""
    allowed = packing.mask(True).allowed
    assert allowed is not None
    return allowed[:, 0].float() @ x


def test_prompts_share_what_they_begin_with() -> None:
    """80 classes of 2 tokens in a prompt of 5 tokens before and 2 behind: 5 once a row, and 4 a text."""
    prompts = [[9, 1, 2, 3, 4, 10 + i, 20 + i % 7, 5, 8] for i in range(80)]
    packing, _, _ = packed(prompts)
    assert packing is not None
    assert packing.source.shape == (6, ROW)  # 14 texts a row; of 720 tokens 350 are written


def test_a_caption_that_occurs_twice_is_written_once() -> None:
    packing, _, _ = packed([[1, 5, 6, 2]] * 40 + [[1, 5, 2]] * 10)
    assert packing is not None
    assert packing.source.shape == (1, 16)
    assert len(packing.last.unique()) == 2


@pytest.mark.parametrize("texts", [[[1, 2, 3]], [[], []], [[1, 2], [3, 4]]])
def test_nothing_is_packed_where_nothing_is_gained(texts: list[list[int]]) -> None:
    assert packed(texts)[0] is None
