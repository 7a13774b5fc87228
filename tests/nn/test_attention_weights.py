import pytest
import torch

from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.nn.attention import Attention
from diptych.nn.attention_weights import attend_openly, keep_attention


@pytest.mark.parametrize("options", [{}, {"qk_norm": "layer", "inner_norm": "layer"}, {"kv_heads": 2, "bias": False}])
def test_the_open_way_is_the_normal_way_in_value_and_gradient(options):
    torch.manual_seed(0)
    attention = Attention(16, 4, **options)
    for x, how in (
        (torch.randn(2, 5, 16), {}),
        (torch.randn(2, 5, 16), {"only": torch.tensor([0, 5, 7])}),
        (torch.randn(2, 3, 16), {"context": torch.randn(2, 6, 16)}),
    ):
        x.requires_grad_()
        normal = attention(x, **how)
        opened, weights = attend_openly(attention, x, **how)
        torch.testing.assert_close(opened, normal)
        sums = weights.sum(-1)
        torch.testing.assert_close(sums, torch.ones_like(sums))
        direction = torch.randn_like(normal)
        one, other = (torch.autograd.grad((o * direction).sum(), x)[0] for o in (normal, opened))
        torch.testing.assert_close(other, one)


def test_a_tower_returns_the_same_while_it_is_looked_at_and_after():
    torch.manual_seed(0)
    tower = VisionTransformerConfig(width=16, depth=3, heads=2, patch_size=4).build(16, 8).eval()
    images = torch.randn(2, 3, 16, 16)
    normal = tower(images)
    with keep_attention(b.attention for b in tower.blocks) as kept:
        torch.testing.assert_close(tower(images), normal)
    assert [tuple(w.shape) for w in kept] == [(2, 2, 17, 17)] * 3
    grads = torch.autograd.grad(tower(images).sum() + 0 * sum(w.sum() for w in kept), kept)
    assert all((g == 0).all() for g in grads)  # the call afterwards went another way
    assert torch.equal(tower(images), normal)
    assert len(kept) == 3
    with pytest.raises(ZeroDivisionError), keep_attention([tower.blocks[0].attention]):
        raise ZeroDivisionError
    assert not tower.blocks[0].attention._forward_hooks
