"""Pages of words and images: learnt by heart and written again, and never against the grammar."""

from dataclasses import replace

import pytest
import torch

from diptych.models.mixed_writing import write_pages
from diptych.models.painting import Painting
from diptych.objectives.chameleon import MixedModalConfig
from tests.models.small_codec import CELLS, CODES
from tests.models.test_chameleon import interleaved, small_chameleon, stirred_chameleon
from tests.models.writers import VOCAB
from tests.objectives.test_dalle import learnt

START = {"tokens": torch.tensor([[2], [2], [2]]), "lengths": torch.tensor([1, 1, 1])}


@pytest.mark.slow
def test_a_page_learnt_by_heart_is_written_again():
    batch = interleaved()
    batch.tokens[:, 0] = 2
    batch.tokens[torch.arange(3), batch.lengths - 1] = 1
    batch.tokens[:, 1] = torch.tensor([10, 11, 12])  # by which they are told apart
    batch = replace(batch, image_position=torch.tensor([2, 4, 2]))
    model = learnt(small_chameleon(), MixedModalConfig(), batch, 150, 1e-2)
    codes = model.codes(batch.images)
    begun = {"tokens": batch.tokens[:, :2], "lengths": torch.tensor([2, 2, 2])}
    pages = write_pages(model, **begun, how=Painting(top_k=1), end_id=1, max_images=2)
    words = [row[2 : n - 1].tolist() for row, n in zip(batch.tokens, batch.lengths, strict=True)]
    assert torch.equal(pages[0][0], codes[0])
    assert pages[0][1] == words[0][:2]
    assert torch.equal(pages[0][2], codes[1])
    assert len(pages[0]) == 3
    assert pages[1] == ([words[1]] if words[1] else [])
    assert torch.equal(pages[2][0], codes[2])
    assert pages[2][1:] == [words[2]]


def test_whatever_is_drawn_keeps_to_the_grammar():
    for within in (False, True):
        model = stirred_chameleon(small_chameleon(codes_within=within))
        model.language.lm_head.weight.data[model.mark_ids[0]] *= 3  # images begin often, or never
        pages = write_pages(model, **START, how=Painting(seed=5, temperature=3.0), end_id=1, max_words=9, max_images=2)
        ids = {*model.code_ids.tolist(), *model.mark_ids.tolist()}
        for page in pages:
            images = [x for x in page if isinstance(x, torch.Tensor)]
            words = [i for x in page if isinstance(x, list) for i in x]
            assert len(images) <= 2
            assert all(len(x) == CELLS and int(x.min()) >= 0 and int(x.max()) < CODES for x in images)
            assert len(words) <= 9
            assert not ids & {*words}
            assert all(0 <= i < VOCAB for i in words)
        again = write_pages(model, **START, how=Painting(seed=5, temperature=3.0), end_id=1, max_words=9, max_images=2)
        assert str(pages) == str(again)
