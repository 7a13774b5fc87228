import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.core.errors import ConfigError
from diptych.objectives.same_pairs import SamePairs, duplicate_shares
from tests.reference.dense_contrastive import same_pairs


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**20), st.integers(1, 30), st.integers(1, 2), st.sampled_from([1, 4, 2**62]), st.data())
def test_tiles_and_counts_are_those_of_the_matrix(seed, n, modalities, kinds, data):
    torch.manual_seed(seed)
    ids = [torch.randint(-kinds, kinds, (n,)) for _ in range(modalities)]
    first = data.draw(st.integers(0, n - 1))
    expected, found = same_pairs(*ids), SamePairs(ids, first)
    assert found.counts().tolist() == expected.sum(1).tolist()
    assert torch.equal(found.matrix(n - first), expected[first:])
    expected.fill_diagonal_(False)
    a, c = data.draw(st.integers(0, n - first - 1)), data.draw(st.integers(0, n - 1))
    rows, columns = slice(a, data.draw(st.integers(a + 1, n - first))), slice(c, data.draw(st.integers(c + 1, n)))
    tile = found.tile(rows, columns)
    wanted = expected[first + rows.start : first + rows.stop, columns]
    assert torch.equal(tile, wanted) if tile is not None else not wanted.any()


def test_tiles_without_duplicates_cost_nothing():
    same = SamePairs([torch.tensor([5, 6, 7, 5]), torch.arange(4)], 0)
    assert same.tile(slice(1, 3), slice(0, 4)) is None
    assert same.tile(slice(0, 1), slice(3, 4)).tolist() == [[True]]
    assert SamePairs([torch.arange(4)], 0).tile(slice(0, 4), slice(0, 4)) is None


def test_what_stands_behind_all_ranks_pairs_is_compared_with_too():
    captions, images = torch.tensor([1, 2, 1]), torch.tensor([5, 6, 7])
    behind = (torch.tensor([2, 9]), torch.tensor([7, 8]))
    assert SamePairs.of_ranks(captions, images, behind).others(3).tolist() == [
        [False, False, True, False, False],
        [False, False, False, True, False],
        [True, False, False, True, False],
    ]
    assert SamePairs.of_ranks(None, images, behind).others(3).nonzero().tolist() == [[2, 3]]
    assert SamePairs.of_ranks(images, None).others(3) is None
    with pytest.raises(ConfigError, match=r"must be 'ignore' for batches without text_ids and image_ids; got 'mask'"):
        SamePairs.of_ranks(None, None, behind)


def test_shares_of_duplicates():
    captions, images = torch.tensor([1, 2, 1, 1]), torch.tensor([5, 6, 7, 6])
    assert duplicate_shares(captions, images) == {"duplicate_captions": 0.75, "duplicate_images": 0.5}
    some = torch.tensor([True, True, True, False])
    found = duplicate_shares(captions, images, some)
    assert found["duplicate_captions"].item() == pytest.approx(2 / 3)
    assert found["duplicate_images"] == 0
    assert duplicate_shares(None, images).keys() == {"duplicate_images"}
