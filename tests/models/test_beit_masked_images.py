"""BEiT's masked image modelling (arXiv:2106.08254) is our vision transformer with a mask token, layer scale and a map
to codes: parity with transformers' `BeitForMaskedImageModeling`, from random weights.

No converter: the published weights have relative position biases in place of positions, which our tower has not.
"""

import pytest
import torch
from torch import nn

from diptych.checkpoints.key_map import Rule, same, to_ours
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.objectives.token_loss import token_loss
from tests.checkpoints.tiny import TOLERANCE, randomise

transformers = pytest.importorskip("transformers")

CODES = 40


def both():
    """Theirs, and ours with the same weights: the tower and its map to codes."""
    settings = transformers.BeitConfig(
        vocab_size=CODES, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        image_size=32, patch_size=8, use_mask_token=True, use_absolute_position_embeddings=True,
        layer_scale_init_value=0.1, drop_path_rate=0.0,
    )  # fmt: skip
    theirs = transformers.BeitForMaskedImageModeling(settings).eval()
    randomise(theirs)
    tower = VisionTransformerConfig(
        width=32, depth=2, heads=2, mlp_ratio=2.0, patch_size=8, norm_eps=1e-12, norm_pre=False, patch_bias=True,
        layer_scale=0.1, mask_token=True, projection="none",
    ).build(32, 32)  # fmt: skip
    code_head = nn.Linear(32, CODES)
    rules = [
        Rule(("cls_token",), "beit.embeddings.cls_token", shape=(1, 1, 32)),
        Rule(("mask_token",), "beit.embeddings.mask_token", shape=(1, 1, 32)),
        Rule(("position_embed",), "beit.embeddings.position_embeddings", shape=(1, 17, 32)),
        *same([("patch_embed", "beit.embeddings.patch_embeddings.projection"), ("norm_post", "layernorm")]),
    ]
    for n in range(2):
        block, layer = f"blocks.{n}", f"beit.layers.{n}"
        pairs = [(f"{block}.norm_1", f"{layer}.layernorm_before"), (f"{block}.norm_2", f"{layer}.layernorm_after")]
        pairs += [(f"{block}.attention.{a}_proj", f"{layer}.attention.{a}_proj") for a in "qv"]
        pairs += [(f"{block}.attention.out_proj", f"{layer}.attention.o_proj")]
        pairs += [(f"{block}.mlp.fc_{i}", f"{layer}.mlp.fc{i}") for i in (1, 2)]
        rules += [*same(pairs), Rule((f"{block}.attention.k_proj.weight",), f"{layer}.attention.k_proj.weight")]
        rules += [Rule((f"{block}.scale_{i}",), f"{layer}.lambda_{i}") for i in (1, 2)]
    state = tower.state_dict()
    no_bias = {n: torch.zeros_like(t) for n, t in state.items() if n.endswith("k_proj.bias")}  # no softmax sees it
    shapes = {n: t.shape for n, t in state.items() if n not in no_bias}
    given = {n: t for n, t in theirs.state_dict().items() if not n.startswith("lm_head.")}
    tower.load_state_dict(to_ours(rules, given, shapes) | no_bias)
    code_head.load_state_dict(theirs.lm_head.state_dict())
    return theirs, tower.eval(), code_head


def test_logits_loss_and_gradients_equal_theirs():
    theirs, tower, code_head = both()
    g = torch.Generator().manual_seed(1)
    images = torch.randn(3, 3, 32, 32, generator=g)
    masked = torch.rand(3, 16, generator=g) < 0.4
    codes = torch.randint(0, CODES, (int(masked.sum()),), generator=g)
    out = theirs(pixel_values=images, bool_masked_pos=masked, labels=codes)
    states = tower.tokens_of_masked(images, masked)[:, 1:]
    torch.testing.assert_close(code_head(states), out.logits, **TOLERANCE)
    loss = token_loss(states[masked], code_head.weight, code_head.bias, codes)[0] / len(codes)
    torch.testing.assert_close(loss, out.loss, **TOLERANCE)
    loss.backward()
    out.loss.backward()
    layer = theirs.beit.layers[0]
    for name, parameter in {
        "mask_token": theirs.beit.embeddings.mask_token,
        "position_embed": theirs.beit.embeddings.position_embeddings,
        "patch_embed.weight": theirs.beit.embeddings.patch_embeddings.projection.weight,
        "blocks.0.attention.k_proj.weight": layer.attention.k_proj.weight,
        "blocks.0.scale_1": layer.lambda_1,
        "norm_post.bias": theirs.layernorm.bias,
    }.items():
        grad = dict(tower.named_parameters())[name].grad
        scale = float(parameter.grad.abs().max())
        assert scale > 1e-6
        torch.testing.assert_close(
            grad, parameter.grad.reshape(grad.shape), rtol=1e-3, atol=1e-5 * scale + 1e-6, msg=name
        )
    torch.testing.assert_close(code_head.weight.grad, theirs.lm_head.weight.grad, rtol=1e-3, atol=1e-6)
    bias = tower.blocks[0].attention.k_proj.bias.grad
    assert bias.abs().max() < 1e-6  # theirs has none, and nothing depends on ours


def test_without_hidden_patches_it_is_the_tower():
    theirs, tower, code_head = both()
    images = torch.randn(2, 3, 32, 32)
    none = torch.zeros(2, 16, dtype=torch.bool)
    torch.testing.assert_close(tower.tokens_of_masked(images, none), tower.tokens(images))
    torch.testing.assert_close(code_head(tower.tokens(images)[:, 1:]), theirs(images).logits, **TOLERANCE)
