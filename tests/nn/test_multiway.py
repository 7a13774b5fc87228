import math

import pytest
import torch

from diptych.core.config import from_json, to_json
from diptych.core.errors import ConfigError
from diptych.nn.block import TransformerBlock
from diptych.nn.checkpointing import recomputable_blocks
from diptych.nn.mask import Layout, padding
from diptych.nn.multiway import MultiwayBlock, MultiwayConfig, build_multiway, init_magneto
from tests.models.towers import stir

SEPARATE = MultiwayConfig(width=16, depth=3, heads=2)
SHARED = MultiwayConfig(width=16, depth=3, heads=2, attention_experts="shared", fusion_layers=1)


def names_with_gradient(block: MultiwayBlock) -> set[str]:
    return {n.rsplit(".", 1)[0].split(".")[1] for n, p in block.named_parameters() if p.grad is not None}


def test_with_one_kind_of_token_it_is_the_block_of_the_house():
    block = stir(MultiwayBlock(SEPARATE)).eval()
    plain = TransformerBlock(SEPARATE.replace()).eval()
    x, mask = torch.randn(2, 5, 16), padding().plan(Layout.of_lengths(torch.tensor([5, 3]), 5))
    for kind, images in (("image", 5), ("text", 0)):
        theirs = {
            n.replace(f"attends.{kind}.", "").replace(f"widens.{kind}.", ""): t
            for n, t in block.state_dict().items()
            if f".{kind}." in n
        }
        plain.load_state_dict(theirs)
        torch.testing.assert_close(block(x, images, mask), plain(x, mask))


def test_equal_experts_do_not_care_where_the_image_ends():
    block = stir(MultiwayBlock(SEPARATE)).eval()
    for half in (block.attends, block.widens):
        half["text"].load_state_dict(half["image"].state_dict())
    x = torch.randn(2, 5, 16)
    for images in (1, 4):
        torch.testing.assert_close(block(x, images), block(x, 5), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("fused,images,experts", [
    (False, 5, {"image"}), (False, 0, {"text"}), (False, 2, {"image", "text"}),
    (True, 5, {"image", "both"}), (True, 0, {"text", "both"}), (True, 2, {"pair", "both"}),
])  # fmt: skip
def test_each_token_goes_through_its_own_expert(fused, images, experts):
    block = MultiwayBlock(SHARED if fused else SEPARATE, fused=fused)
    block(torch.randn(2, 5, 16), images).sum().backward()
    assert names_with_gradient(block) == experts


def test_a_pair_is_dropped_together():
    block = MultiwayBlock(SEPARATE, rate=0.5).train()
    x = torch.randn(64, 4, 16)
    moved = (block(x, 2) - x).abs().amax(2) > 1e-6
    assert bool((moved == moved[:, :1]).all())
    assert 0 < int(moved[:, 0].sum()) < 64


def test_the_last_layers_are_fused_and_drop_most():
    blocks = build_multiway(SHARED.replace(drop_path=0.2))
    assert ["pair" in b.widens for b in blocks] == [False, False, True]
    assert [b.rate for b in blocks] == pytest.approx([0, 0.1, 0.2])
    assert len(recomputable_blocks(blocks)) == 3


def test_first_weights_are_magnetos():
    blocks = build_multiway(MultiwayConfig(width=128, depth=8, heads=2))
    init_magneto(blocks, 8)
    a, gain = blocks[3].attends["text"].attention, math.sqrt(math.log(16))
    xavier = math.sqrt(2 / 256)
    for linear, scale in ((a.q_proj, 1), (a.k_proj, 1), (a.v_proj, gain), (a.out_proj, gain)):
        assert float(linear.weight.std()) == pytest.approx(scale * xavier, rel=0.03)
    mlp = blocks[0].widens["image"].mlp
    assert float(mlp.fc_2.weight.std()) == pytest.approx(gain * math.sqrt(2 / (5 * 128)), rel=0.03)
    assert not any(p.any() for n, p in blocks.named_parameters() if n.endswith("bias"))


def test_queries_and_keys_may_have_norms():
    block = stir(MultiwayBlock(SEPARATE.replace(qk_norm=True))).eval()
    x = torch.randn(2, 5, 16)
    for half in (block.attends, block.widens):
        half["text"].load_state_dict(half["image"].state_dict())
    torch.testing.assert_close(block(x, 2), block(x, 5), atol=1e-6, rtol=1e-5)


def test_settings():
    assert from_json(to_json(SHARED)) == SHARED
    with pytest.raises(ConfigError, match=r"norm_position must be 'pre' or 'sub'.*got 'post'"):
        SEPARATE.replace(norm_position="post")
    with pytest.raises(ConfigError, match="without cross_attention, kv_heads and layer_scale"):
        SEPARATE.replace(layer_scale=0.1)
    with pytest.raises(ConfigError, match=r"fusion_layers must be at most depth; got 4 of 3"):
        SEPARATE.replace(fusion_layers=4)
