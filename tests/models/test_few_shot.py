import pytest
import torch

from diptych.core.batch import Batch
from diptych.core.errors import DataError
from diptych.models.few_shot import few_shot
from diptych.models.generate import Generation, write
from tests.models.test_flamingo import SMALL, wide_open
from tests.models.writers import small_prefix_lm, stirred

START, CPU = 1, torch.device("cpu")
READY = {"flamingo": lambda: wide_open(SMALL).eval(), "prefix_lm": lambda: stirred(small_prefix_lm(context_length=24))}


@pytest.mark.parametrize("kind", READY)
def test_what_is_written_is_what_the_whole_page_makes_likeliest(kind):
    """k examples of image and text, then a query, read once and decoded from a cache."""
    model = READY[kind]()
    images = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    prompt = few_shot([[[START, 7, 8], [9, 10, 11, 12]], [[START, 4]]], [[13, 14], [15, 16, 17]], CPU)
    assert prompt.lengths.tolist() == [9, 5]
    assert prompt.image_record.tolist() == [0, 0, 0, 1, 1]
    assert prompt.image_position.tolist() == [0, 3, 7, 0, 2]
    state = model.begin(model.image_features(images), prompt)
    written = write(model, state, Generation(start_id=START, end_id=0, max_tokens=5))
    for i, said in enumerate(written):
        mine = prompt.image_record == i
        start = prompt.tokens[i, : prompt.lengths[i]].tolist()
        for n in range(5):
            row = torch.tensor([[*start, *said[:n], 0]])
            page = Batch(
                images=images[mine],
                image_record=torch.zeros(int(mine.sum()), dtype=torch.int64),
                image_position=prompt.image_position[mine],
                tokens=row,
                lengths=torch.tensor([row.shape[1]]),
            )
            likeliest = int(model.logits(model.predict(page).hidden[-1]).argmax())
            assert likeliest == (said[n] if n < len(said) else 0)
            if n >= len(said):
                break


def test_what_does_not_fit_is_said():
    with pytest.raises(DataError, match="examples must be given for each of the queries"):
        few_shot([[]], [[1], [2]], CPU)
    with pytest.raises(DataError, match="a token at least"):
        few_shot([[[1], []]], [[2]], CPU)
    assert few_shot([[]], [[START, 4]], CPU).image_position.tolist() == [0]
