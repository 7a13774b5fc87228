"""Tests against diffusers' denoisers: answers and gradients from random weights, there and back."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from diptych.checkpoints.diffusers_denoisers import (
    build_denoiser,
    denoiser_state,
    read_denoiser,
    their_state,
    write_denoiser,
)
from diptych.core.errors import CheckpointError
from diptych.nn.denoiser import Condition, Denoiser
from tests.checkpoints.tiny import assert_equal_states, randomise

diffusers = pytest.importorskip("diffusers")

BLOCKS = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2, "sample_size": 8, "patch_size": 2}
UNET = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (16, 32),
    "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 24,
    "attention_head_dim": 2,
    "norm_num_groups": 8,
}
TIMES = torch.tensor([7, 480, 999])


def dit(**changes: Any) -> Any:
    model = diffusers.DiTTransformer2DModel(
        **{**BLOCKS, "in_channels": 4, "num_embeds_ada_norm": 10, "norm_num_groups": 2, **changes}
    ).eval()
    randomise(model)
    first = model.transformer_blocks[0].norm1.emb
    for block in model.transformer_blocks[1:]:  # as in the public weights, where all blocks hold the same
        block.norm1.emb.load_state_dict(first.state_dict())
    return model


def pixart(**changes: Any) -> Any:
    plain = {"in_channels": 4, "out_channels": 8, "cross_attention_dim": 32, "caption_channels": 20}
    model = diffusers.PixArtTransformer2DModel(**{**BLOCKS, **plain, "norm_num_groups": 2, **changes}).eval()
    randomise(model)
    return model


def unet(**changes: Any) -> Any:
    model = diffusers.UNet2DConditionModel(**{**UNET, **changes}).eval()
    randomise(model)
    return model


def settings_of(theirs: Any) -> dict[str, Any]:
    return json.loads(theirs.to_json_string())


def ours(theirs: Any) -> Denoiser:
    found = build_denoiser(settings_of(theirs))
    found.load_state_dict(denoiser_state(found, theirs.state_dict()))
    return found.eval()


def noised(channels: int = 4, side: int = 8) -> torch.Tensor:
    return torch.randn(3, channels, side, side, generator=torch.Generator().manual_seed(1))


def check(mine: torch.Tensor, yours: torch.Tensor, model: Denoiser, gradients: dict[str, nn.Parameter]) -> None:
    """Answers and gradients of a scalar of them."""
    torch.testing.assert_close(mine, yours, atol=2e-5, rtol=1e-4)  # fp32 sums in another order
    weight = torch.randn(mine.shape, generator=torch.Generator().manual_seed(2))
    (mine * weight).sum().backward()
    (yours * weight).sum().backward()
    parameters = dict(model.named_parameters())
    for name, parameter in gradients.items():
        found, wanted = parameters[name].grad, parameter.grad
        assert found.abs().max() > 1e-5, f"{name} must have a gradient to compare"
        torch.testing.assert_close(found, wanted.view_as(found), rtol=2e-3, atol=2e-5 * float(wanted.abs().max()))


def test_dit_answers_as_theirs_does() -> None:
    """Theirs writes times in waves of 128 / 127 times the paper's steps (downscale_freq_shift=1), and its second norm
    has another epsilon: both are settings of ours."""
    theirs = dit(out_channels=8)
    model, x, labels = ours(theirs), noised(), torch.tensor([3, 0, 10])
    out = theirs(x, TIMES, labels).sample[:, :4]
    mine = model(x, TIMES.float(), Condition(labels=labels))
    blocks = theirs.transformer_blocks
    theirs_first = blocks[1].attn1.to_q.weight
    gradients = {
        "patch_embed.weight": theirs.pos_embed.proj.weight,
        "blocks.1.attention.q_proj.weight": theirs_first,
        "blocks.0.modulation.weight": blocks[0].norm1.linear.weight,
        "blocks.1.mlp.fc_2.bias": blocks[1].ff.net[2].bias,
        "modulation_final.weight": theirs.proj_out_1.weight,
    }
    check(mine, out, model, gradients)
    assert model.config.time_shift == 1
    paper = model.config.replace(time_shift=0).build(4, 8, 0, 0)
    paper.load_state_dict(model.state_dict())
    assert not torch.allclose(paper(x, TIMES.float(), Condition(labels=labels)), mine, atol=1e-2)


@pytest.mark.parametrize("interpolation", [None, 2])
def test_pixart_answers_as_theirs_does(interpolation: int | None) -> None:
    theirs = pixart(interpolation_scale=interpolation)
    model, x = ours(theirs), noised()
    words, lengths = torch.randn(3, 6, 20), torch.tensor([6, 2, 4])
    real = (torch.arange(6) < lengths[:, None]).float()
    out = theirs(x, words, TIMES, encoder_attention_mask=real).sample[:, :4]
    mine = model(x, TIMES.float(), Condition(words, lengths))
    block = theirs.transformer_blocks[0]
    gradients = {
        "time_embed.fc_1.weight": theirs.adaln_single.emb.timestep_embedder.linear_1.weight,
        "context_embed.fc_1.weight": theirs.caption_projection.linear_1.weight,
        "blocks.0.table": block.scale_shift_table,
        "blocks.0.cross_attention.k_proj.weight": block.attn2.to_k.weight,
        "table_final": theirs.scale_shift_table,
        "head.weight": theirs.proj_out.weight,
    }
    check(mine, out, model, gradients)


@pytest.mark.parametrize("values", [{}, {"use_linear_projection": True, "layers_per_block": 1, "norm_eps": 1e-6}])
def test_the_unet_answers_as_theirs_does(values: dict[str, Any]) -> None:
    theirs = unet(**values)
    model, x = ours(theirs), noised()
    words, lengths = torch.randn(3, 6, 24), torch.tensor([6, 2, 4])
    real = torch.arange(6) < lengths[:, None]
    out = theirs(x, TIMES, words, encoder_attention_mask=real).sample
    mine = model(x, TIMES.float(), Condition(words, lengths))
    down = theirs.down_blocks[0]
    gradients = {
        "conv_in.weight": theirs.conv_in.weight,
        "time_embed.fc_2.weight": theirs.time_embedding.linear_2.weight,
        "down.0.residuals.0.time.weight": down.resnets[0].time_emb_proj.weight,
        "down.0.readers.0.cross_attention.k_proj.weight": down.attentions[0].transformer_blocks[0].attn2.to_k.weight,
        "down.0.readers.0.proj_in.weight": down.attentions[0].proj_in.weight,
        "middle.readers.0.fc_1.weight": theirs.mid_block.attentions[0].transformer_blocks[0].ff.net[0].proj.weight,
        "up.0.residuals.1.shortcut.weight": theirs.up_blocks[0].resnets[1].conv_shortcut.weight,
        "up.0.resize.weight": theirs.up_blocks[0].upsamplers[0].conv.weight,
    }
    check(mine, out, model, gradients)


@pytest.mark.parametrize("make", [dit, pixart, unet])
def test_there_and_back_is_equal_to_the_byte(make: Any, tmp_path: Path) -> None:
    theirs = make()
    theirs.save_pretrained(tmp_path / "theirs")
    model = read_denoiser(tmp_path / "theirs")
    assert_equal_states(their_state(model), dict(theirs.state_dict()))
    write_denoiser(model, tmp_path / "back", json.loads((tmp_path / "theirs" / "config.json").read_text()))
    back = type(theirs).from_pretrained(tmp_path / "back")
    assert_equal_states(dict(back.state_dict()), dict(theirs.state_dict()))
    again = read_denoiser(tmp_path / "back")
    assert again.config == model.config


def test_what_has_no_place_is_said(tmp_path: Path) -> None:
    for make, changes, words in (
        (dit, {"activation_fn": "geglu"}, "activation_fn"),
        (pixart, {"caption_channels": None}, "texts without a projection"),
        (unet, {"up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")}, "do not mirror"),
        (unet, {"freq_shift": 1}, "freq_shift=1"),
        (unet, {"_class_name": "UNet2DModel"}, "known: DiT"),
    ):
        settings = {**settings_of(make()), **changes}
        (tmp_path / "config.json").write_text(json.dumps(settings))
        with pytest.raises(CheckpointError, match=words):
            read_denoiser(tmp_path)
    theirs = dit()
    with torch.no_grad():
        theirs.transformer_blocks[1].norm1.emb.timestep_embedder.linear_1.bias.add_(1)
    with pytest.raises(CheckpointError, match="of its own in block 1"):
        ours(theirs)
    with pytest.raises(CheckpointError, match="must describe the denoiser"):
        write_denoiser(ours(pixart()), tmp_path / "out", settings_of(dit()))
