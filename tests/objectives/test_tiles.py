import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.objectives.tiles import Scratch, TileSize, Wanted, best_texts, tile_size, tiles, with_gradient
from tests.objectives.tile_cases import Case, LargestTensor, cases


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 22), st.integers(1, 22), st.integers(0, 20))
def test_tiles_cover_the_matrix_once_and_know_their_own_entries(b, g, rows, columns, first):
    covered, own = torch.zeros(b, g), torch.zeros(b, g)
    size = TileSize(rows, columns, 0)
    room = Scratch(covered, size, b, g)
    for tile in tiles(b, 0, g, size):
        assert room(tile).shape == covered[tile.rows, tile.columns].shape
        assert tile.inside == tile.columns
        covered[tile.rows, tile.columns] += 1
        of_row, entries = tile.own(own[tile.rows, tile.columns], first)
        entries += torch.arange(of_row.start, of_row.stop) + 1
    assert (covered == 1).all()
    expected = torch.zeros(b, g)
    for i in range(b):
        if first + i < g:
            expected[i, first + i] = i + 1
    assert torch.equal(own, expected)


@settings(max_examples=40, deadline=None)
@given(cases())
def test_best_texts_are_those_of_the_matrix(case: Case):
    expected = (case.image @ case.text.T).argmax(1) == torch.arange(len(case.image))
    found = best_texts(case.pairs())
    if case.image.shape[1] > 2:  # else there are ties but for rounding
        assert found.tolist() == expected.float().tolist()


def test_of_equals_the_first_is_best():
    case = Case(torch.ones(5, 2), torch.ones(5, 2), [torch.arange(5)], 1.0, TileSize(2, 2, 0))
    with LargestTensor() as watch:
        assert best_texts(case.pairs()).tolist() == [1, 0, 0, 0, 0]
    assert watch.elements <= 10


def test_a_known_gradient_is_handed_on_scaled():
    x, y = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor(3.0)
    gradient = torch.tensor([5.0, 7.0])
    value = with_gradient(torch.tensor(4.0), [(x, gradient), (y, None)])
    (2 * value).backward(retain_graph=True)
    assert (value.item(), x.grad.tolist()) == (4, [10, 14])
    value.backward()
    assert x.grad.tolist() == [15, 21]
    assert gradient.tolist() == [5, 7]
    (first,) = torch.autograd.grad(with_gradient(torch.tensor(4.0), [(x, gradient)]), x, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        first.sum().backward()


def test_only_what_can_learn_wants_a_gradient():
    x, y = torch.ones(1, requires_grad=True), torch.ones(1)
    assert Wanted.of(x, y, y, x) == (True, False, True)
    with torch.no_grad():
        assert not Wanted.of(x, x, x).any
    assert tile_size(torch.device("cpu")).rows < tile_size(torch.device("cuda")).rows
