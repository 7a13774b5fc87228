import torch

from diptych.nn.norm import build_norm


def test_layer_norm_by_hand() -> None:
    x = torch.randn(3, 4, 8)
    by_hand = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 0.5).sqrt()
    torch.testing.assert_close(build_norm("layer", 8, 0.5)(x), by_hand)


def test_rms_norm_by_hand() -> None:
    x = torch.randn(3, 4, 8)
    by_hand = x / (x.square().mean(-1, keepdim=True) + 0.5).sqrt()
    torch.testing.assert_close(build_norm("rms", 8, 0.5)(x), by_hand)
