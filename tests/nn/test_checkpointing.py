import copy

import pytest
import torch
from torch import nn

from diptych.models.convnet import ConvNetConfig
from diptych.models.modified_resnet import ModifiedResNetConfig
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.tower import ImageTower
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.nn.checkpointing import recomputable_blocks, set_checkpointing

TOWERS = {
    "vit": (VisionTransformerConfig(patch_size=8, width=32, depth=3, heads=2, drop_path=0.5, patch_dropout=0.3), 3),
    "basic": (ConvNetConfig(widths=(8, 16), depths=(1, 2), block="basic", norm="batch", dropout=0.2), 3),
    "inverted": (ConvNetConfig(widths=(8, 16), depths=(1, 1), block="inverted", norm="batch"), 2),
    "resnet": (ModifiedResNetConfig(stem_width=8, depths=(1, 1, 1, 1)), 4),
}


def step(tower: ImageTower, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a forward and a backward pass leave: the output, all gradients, all buffers, the random state."""
    torch.manual_seed(3)
    tower.zero_grad()
    out = tower(images)
    out.pow(3).sum().backward()
    left = {"out": out.detach(), "random": torch.get_rng_state()}
    left |= {f"grad {n}": p.grad.clone() for n, p in tower.named_parameters()}
    return left | {f"buffer {n}": b.clone() for n, b in tower.named_buffers()}


@pytest.mark.parametrize("name", TOWERS)
def test_value_gradient_draws_and_statistics_are_those_of_the_plain_pass_to_the_bit(name):
    config, blocks = TOWERS[name]
    plain = config.build(32, 8).train()
    tower = copy.deepcopy(plain)
    assert set_checkpointing(tower, True) == blocks
    images = torch.randn(4, 3, 32, 32)
    expected, found = step(plain, images), step(tower, images)
    assert expected.keys() == found.keys()
    for key in expected:
        assert torch.equal(found[key], expected[key]), key


def test_text_under_a_mask_and_autocast():
    plain = TextTransformerConfig(width=32, depth=2, heads=2, attention="bidirectional", pooling="mean", drop_path=0.5)
    plain = plain.build(50, 10, 8)
    tower = copy.deepcopy(plain)
    set_checkpointing(tower, True)
    tokens, lengths = torch.randint(0, 50, (4, 10)), torch.tensor([3, 10, 1, 7])
    for one in (plain, tower):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16):
            out = one(tokens, lengths)
        out.float().pow(2).sum().backward()
    for (name, p), q in zip(plain.named_parameters(), tower.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad), name


def saved_bytes(tower: nn.Module, images: torch.Tensor) -> int:
    kept: dict[int, int] = {}

    def pack(t: torch.Tensor) -> torch.Tensor:
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        tower(images).sum()
    return sum(kept.values())


def test_less_is_kept_and_it_can_be_turned_off_and_on_again():
    tower = VisionTransformerConfig(patch_size=8, width=32, depth=6, heads=2).build(32, 8)
    images = torch.randn(4, 3, 32, 32)
    plain = saved_bytes(tower, images)
    names = list(tower.state_dict())
    for _ in range(2):
        set_checkpointing(tower, True)
    assert saved_bytes(tower, images) < 0.5 * plain
    assert list(tower.state_dict()) == names
    twin = copy.deepcopy(tower)
    assert all(b.forward.args[0] is b for b in recomputable_blocks(twin))
    set_checkpointing(tower, False)
    assert not any("forward" in b.__dict__ for b in recomputable_blocks(tower))
    assert saved_bytes(tower, images) == plain


def test_a_forward_that_was_put_there_before_is_what_is_run():
    tower = VisionTransformerConfig(patch_size=8, width=32, depth=1, heads=2).build(32, 8)
    (block,) = recomputable_blocks(tower)
    calls = []
    before = block.forward

    def counted(*args, **kwargs):
        calls.append(args)
        return before(*args, **kwargs)

    block.forward = counted
    set_checkpointing(tower, True)
    tower(torch.randn(2, 3, 32, 32)).sum().backward()
    assert len(calls) == 2  # and once again in the backward pass
    with torch.no_grad():
        tower(torch.randn(2, 3, 32, 32))
    assert len(calls) == 3
    set_checkpointing(tower, False)
    assert block.forward is counted
