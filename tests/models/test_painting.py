"""What is drawn for a text depends on its number, not on the batch."""

import torch

from diptych.models.painting import Painting


def test_the_draws_of_a_text_are_its_own():
    device = torch.device("cpu")
    whole = Painting(seed=3).keys(8, device)
    assert torch.equal(Painting(seed=3, first=5).keys(3, device), whole[5:])
    assert len(set(whole.tolist())) == 8
    assert not torch.equal(Painting(seed=4).keys(8, device), whole)
