import pytest
import torch

from diptych.nn.media import media
from diptych.nn.splice import splice
from tests.reference.media import seen

CPU = torch.device("cpu")
LENGTHS = [5, 2, 0, 7, 3, 1, 4]
IMAGES = [(0, 0), (0, 3), (1, 1), (2, 0), (3, 2), (3, 2), (3, 7), (4, 0), (6, 0), (6, 0), (6, 4)]


def laid(form, lengths=LENGTHS, images=IMAGES, ahead=0):
    record, position = (torch.tensor([i[n] for i in images], dtype=torch.int64) for n in (0, 1))
    text = splice(torch.tensor(lengths), max(lengths), 0, record, position, None, CPU, form)
    return text, media(text, record, position, CPU, ahead)


@pytest.mark.parametrize("form", ["rows", "padded"])
@pytest.mark.parametrize("ahead", [0, 1])
def test_each_token_sees_the_tokens_of_its_last_image_alone(form, ahead):
    text, beside = laid(form, ahead=ahead)
    features = torch.arange(len(IMAGES))[:, None, None] * 10.0 + torch.arange(2)[:, None]  # (i, 2, 1)
    taken, plan = beside.take(features)[..., 0], beside.mask(2)
    length, found = text.layout.length, []
    for place in text.text.tolist():
        row, column = divmod(place, length)
        sees = bool(plan.sees[row, 0, column, 0])
        found.append(taken[row][plan.allowed[row, 0, column]].tolist() if sees else None)
    wanted = [n for row in seen(LENGTHS, IMAGES, ahead) for n in row]
    assert found == [None if n is None else [n * 10.0, n * 10.0 + 1] for n in wanted]
    real = torch.zeros(plan.sees.numel(), dtype=torch.bool).index_fill(0, text.text, True)
    assert not plan.sees.flatten()[~real].any()  # filling sees nothing
    assert plan.allowed.any(-1).all()  # and no softmax is over nothing


def test_rows_of_no_images_look_at_nothing():
    _, beside = laid("padded", [3, 2], [(1, 0)])
    plan = beside.mask(4)
    assert plan.sees[:, 0, :, 0].tolist() == [[False] * 3, [True, True, False]]
    assert beside.take(torch.ones(1, 4, 6)).shape == (2, 4, 6)


def test_images_without_places_stand_first():
    lengths, record = torch.tensor([2, 3]), torch.arange(2)
    text = splice(lengths, 3, 0, record, None, None, CPU, "padded")
    assert media(text, record, None, CPU).mask(1).sees[:, 0, :, 0].tolist() == [[True, True, False], [True] * 3]
