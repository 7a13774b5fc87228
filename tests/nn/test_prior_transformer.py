import torch

from diptych.nn.block import BlockConfig
from diptych.nn.prior_transformer import PriorTransformer
from tests.models.towers import stir


def test_the_query_sees_the_text_and_no_padding():
    model = PriorTransformer(BlockConfig(width=16, depth=2, heads=2), 6, 5, 4)
    stir(model)
    noised, times, vector = torch.randn(2, 4), torch.tensor([3.0, 900.0]), torch.randn(2, 4)
    words, lengths = torch.randn(2, 6, 5), torch.tensor([6, 3])
    plain = model(noised, times, words, lengths, vector)
    padded = words.clone()
    padded[1, 3:] = 50.0
    torch.testing.assert_close(model(noised, times, padded, lengths, vector), plain)
    torch.testing.assert_close(model(noised[1:], times[1:], words[1:, :3], lengths[1:], vector[1:]), plain[1:])
    for place in (0, 2):
        other = words.clone()
        other[1, place] += 1
        assert not torch.allclose(model(noised, times, other, lengths, vector)[1], plain[1], atol=1e-5)
    assert not torch.allclose(model(noised, times + 7, words, lengths, vector), plain, atol=1e-5)
    assert not torch.allclose(model(noised, times, words, lengths, vector + 1), plain, atol=1e-5)


def test_its_numbers_spread_as_noise_does():
    model = PriorTransformer(BlockConfig(width=16, depth=1, heads=2), 6, 5, 64)
    unit = torch.nn.functional.normalize(torch.randn(100, 64), dim=1)
    assert abs(float(((unit - model.mean) / model.std).std()) - 1) < 0.02
    assert model.decay_free() == {"position_embed"}
