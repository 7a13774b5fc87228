"""The draws of the model's side are those of the data's side."""

import numpy as np
import torch

from diptych.core.seeds import fold
from diptych.data.draws import Draws
from diptych.nn import draws

KEYS = [fold(7, "augment", n) for n in range(300)]


def test_words_are_those_of_the_data_room_bit_for_bit():
    given = draws.words(torch.tensor(KEYS), "mask", 9)
    assert np.array_equal(given.numpy().view(np.uint64), Draws(KEYS).words("mask", 9))


def test_a_row_is_decided_by_its_key_alone():
    whole = draws.normal(torch.tensor(KEYS), "noise", 12)
    assert torch.equal(draws.normal(torch.tensor(KEYS[17:18]), "noise", 12)[0], whole[17])
    assert not torch.equal(draws.normal(torch.tensor(KEYS), "other", 12), whole)


def test_uniform_and_normal_are_what_they_are_called():
    u = draws.uniform(torch.tensor(KEYS), "u", 500)
    assert float(u.min()) >= 0
    assert float(u.max()) < 1
    assert abs(float(u.mean()) - 0.5) < 0.005
    x = draws.normal(torch.tensor(KEYS), "n", 500)
    assert x.isfinite().all()
    assert abs(float(x.mean())) < 0.02
    assert abs(float(x.std()) - 1) < 0.02
    rate = draws.happens(torch.arange(4000), "h", 0.3).float().mean()
    assert abs(float(rate) - 0.3) < 0.03
