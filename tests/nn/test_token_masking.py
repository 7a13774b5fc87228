"""Tokens are hidden at the rate asked for, word by word if so, and never the ends."""

import pytest
import torch

from diptych.core.errors import ConfigError
from diptych.nn.token_masking import TokenMaskingConfig, mask_tokens

MASK, VOCAB = 50, 50


def texts(b: int = 400, t: int = 22) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = 2 + torch.arange(b) % (t - 1)
    return torch.randint(3, VOCAB, (b, t)), lengths


def test_the_share_is_exact_and_the_ends_stay():
    tokens, lengths = texts()
    found = mask_tokens(tokens, lengths, torch.arange(400), TokenMaskingConfig(rate=0.3), MASK, VOCAB)
    place = torch.arange(22)
    inside = (place > 0) & (place < lengths[:, None] - 1)
    assert not (found.masked & ~inside).any()
    count = inside.sum(1)
    wanted = torch.where(count > 0, (0.3 * count).round().clamp(min=1), 0)
    assert torch.equal(found.masked.sum(1), wanted.long())
    assert torch.equal(found.tokens[~found.masked], tokens[~found.masked])


@pytest.mark.parametrize("rate", [0.15, 0.3, 0.35, 0.6, 1.0])
def test_no_text_has_more_hidden_than_the_most_of_its_width(rate):
    how = TokenMaskingConfig(rate=rate)
    for width in (1, 2, 3, 5, 30, 92):  # 0.35 of 90 is above 31.5 in float32 alone
        found = mask_tokens(torch.zeros(1, width).long(), torch.tensor([width]), torch.arange(1), how, MASK, VOCAB)
        assert how.most(width) == max(1, int(found.masked.sum()))
    assert how.replace(unit="word").most(30) == 30
    assert how.most(0) == 0


def test_four_fifths_become_the_mask_a_tenth_another_token():
    tokens, lengths = texts(2000)
    found = mask_tokens(tokens, lengths, torch.arange(2000), TokenMaskingConfig(rate=0.5), MASK, VOCAB)
    new, old = found.tokens[found.masked], tokens[found.masked]
    assert (new == MASK).float().mean().item() == pytest.approx(0.8, abs=0.02)
    assert ((new != MASK) & (new != old)).float().mean().item() == pytest.approx(0.1, abs=0.02)
    assert int(new[new != MASK].max()) < VOCAB


def test_words_are_hidden_whole():
    tokens, lengths = texts()
    starts = torch.rand(400, 22) < 0.5
    config = TokenMaskingConfig(rate=0.3, unit="word")
    masked = mask_tokens(tokens, lengths, torch.arange(400), config, MASK, VOCAB, starts).masked
    place = torch.arange(22)
    inside = (place > 0) & (place < lengths[:, None] - 1)
    for row in range(400):
        word, last = -1, None
        for i in range(22):
            if not inside[row, i]:
                continue
            if starts[row, i] or word < 0:
                word, last = word + 1, bool(masked[row, i])
            assert bool(masked[row, i]) == last
        count, wanted = int(inside[row].sum()), round(0.3 * int(inside[row].sum()))
        assert int(masked[row].sum()) >= min(count, max(1, wanted)) * (count > 0)


def test_a_text_is_masked_alike_in_any_batch():
    tokens, lengths = texts()
    keys = torch.arange(400) * 977
    whole = mask_tokens(tokens, lengths, keys, TokenMaskingConfig(), MASK, VOCAB)
    alone = mask_tokens(tokens[7:9], lengths[7:9], keys[7:9], TokenMaskingConfig(), MASK, VOCAB)
    assert torch.equal(whole.tokens[7:9], alone.tokens)


def test_shares_must_fit():
    with pytest.raises(ConfigError, match="must be shares that add up to 1"):
        TokenMaskingConfig(replaced=0.9, random=0.2)
