import pytest
import torch

from diptych.core.errors import DataError
from diptych.nn.mask import IMAGE
from diptych.nn.splice import splice
from tests.reference.splice import spliced_rows, targets_of

LENGTHS, WIDTH, TOKENS = [4, 1, 6, 0, 3], 7, 2
IMAGES = [(0, 0), (0, 2), (2, 6), (3, 0), (4, 1), (4, 1)]


def pairs_or_pages(images):
    record = torch.tensor([r for r, _ in images])
    return record, torch.tensor([p for _, p in images])


@pytest.mark.parametrize("form", ["rows", "flat", "padded"])
@pytest.mark.parametrize("images", [IMAGES, [(i, 0) for i in range(5)], []])
def test_every_token_stands_where_the_plain_twin_puts_it(form, images):
    record, position = pairs_or_pages(images) if images else (None, None)
    mask = torch.rand(5, WIDTH) < 0.6
    s = splice(torch.tensor(LENGTHS), WIDTH, TOKENS, record, position, mask, form=form)
    rows = spliced_rows(LENGTHS, WIDTH, TOKENS, images)
    assert s.sizes.tolist() == [len(r) for r in rows]
    text = torch.arange(5 * WIDTH).view(5, WIDTH, 1).float()
    pictures = 1000.0 + torch.arange(len(images) * TOKENS).view(len(images), TOKENS, 1) if images else None
    x = s.take(text, pictures).flatten(0, 1)[:, 0]
    starts = [int(s.last[i]) - max(len(r) - 1, 0) for i, r in enumerate(rows)]
    for start, row in zip(starts, rows, strict=True):
        want = [n if kind == "text" else 1000 + n for kind, n in row]
        assert x[start : start + len(row)].tolist() == want
        modality = s.layout.modalities().flatten()[start : start + len(row)]
        assert (modality == IMAGE).tolist() == [kind == "image" for kind, _ in row]
        assert s.layout.positions().flatten()[start : start + len(row)].tolist() == list(range(len(row)))
    found = zip(s.record.tolist(), s.before.tolist(), s.targets.tolist(), strict=True)
    want = [(r, starts[r] + before, number) for r, before, number in targets_of(rows, mask)]
    assert sorted(found) == sorted(want)
    assert x[s.text].tolist() == [n for row in rows for kind, n in row if kind == "text"]


@pytest.mark.parametrize("seen", ["causal", "prefix"])
@pytest.mark.parametrize("form", ["rows", "padded"])
def test_a_token_sees_its_own_record_and_nothing_behind_itself(seen, form):
    record, position = pairs_or_pages([(i, 0) for i in range(5)])
    s = splice(torch.tensor(LENGTHS), WIDTH, TOKENS, record, position, form=form)
    plan = s.mask(seen)
    length = s.layout.length
    allowed = torch.ones(1, 1, length, length, dtype=torch.bool).tril() if plan.allowed is None else plan.allowed
    allowed = allowed.expand(s.source.shape[0], 1, length, length)[:, 0]
    for i, n in enumerate(s.sizes.tolist()):
        row, at = divmod(int(s.last[i]) - n + 1, length)
        mine = allowed[row, at : at + n]
        inside = torch.ones(n, n, dtype=torch.bool).tril()
        if seen == "prefix":
            inside[:, :TOKENS] = True
        assert torch.equal(mine[:, at : at + n], inside)
        outside = mine.clone()
        outside[:, at : at + n] = False
        assert form == "padded" or not outside.any()


def test_default_targets_are_all_but_each_rows_first_token():
    s = splice(torch.tensor([3, 2]), 3, 0)
    assert s.targets.tolist() == [1, 2, 4]
    assert s.record.tolist() == [0, 0, 1]


def test_places_that_are_not_in_the_text_are_refused():
    with pytest.raises(DataError, match="image_position must lie"):
        splice(torch.tensor([3]), 4, 1, torch.tensor([0]), torch.tensor([4]))
    with pytest.raises(DataError, match="record by record"):
        splice(torch.tensor([3, 3]), 4, 1, torch.tensor([1, 0]), torch.tensor([0, 0]))
    with pytest.raises(DataError, match="image_record must name"):
        splice(torch.tensor([3]), 4, 1, torch.tensor([1]), torch.tensor([0]))
