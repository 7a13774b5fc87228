import pytest
import torch

from diptych.models import pair_scores
from diptych.models.pair_scores import log_odds


@pytest.mark.parametrize("at_once", [1, 4, 64])
def test_every_pair_is_judged_as_if_alone(monkeypatch, at_once):
    monkeypatch.setattr(pair_scores, "PAIRS", at_once)
    g = torch.Generator().manual_seed(1)
    image, text = torch.randn(3, 2, 4, generator=g), torch.randn(5, 4, generator=g)
    lengths, rows = torch.tensor([1, 4, 2, 3, 4]), []

    def judge(images, texts, sizes):
        rows.append(len(images))
        read = (texts * (torch.arange(4) < sizes[:, None]))[:, None]
        return (images * read).sum(2)

    found = log_odds(judge, image, text, lengths)
    assert found.shape == (3, 5)
    assert max(rows) == min(at_once, 15)
    for i in range(3):
        for b in range(5):
            no, yes = judge(image[i : i + 1], text[b : b + 1], lengths[b : b + 1])[0]
            assert found[i, b].item() == pytest.approx((yes - no).item(), abs=1e-6)


def test_no_pairs_have_no_scores():
    lengths = torch.ones(3, dtype=torch.int64)
    for i, b in ((0, 3), (3, 0)):
        assert log_odds(lambda image, *_: image, torch.zeros(i, 2), torch.zeros(b, 1), lengths[:b]).shape == (i, b)
