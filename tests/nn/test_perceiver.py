"""Against flamingo-pytorch, block by block. Its mask is by `media_locations`, the tokens at which images stand; ours is
given, so here both are made from the same places."""

import flamingo_pytorch
import pytest
import torch
from torch import Tensor, nn

from diptych.core.errors import ConfigError
from diptych.nn.cache import KeyValues
from diptych.nn.mask import IMAGE, Layout, MaskPlan, media_causal
from diptych.nn.perceiver import (
    GatedCrossAttention,
    GatedCrossAttentionConfig,
    PerceiverResampler,
    ResamplerConfig,
)
from tests.models.towers import stir

RESAMPLER = ResamplerConfig(latents=5, depth=2, heads=3, head_width=8)
CROSS = GatedCrossAttentionConfig(heads=3, head_width=8)
ATTENTION = (("to_q", "q_proj"), ("to_out", "out_proj"))


def copied(theirs: nn.Module, ours: nn.Module, names: dict[str, str]) -> None:
    """Their weights put into ours; `names`: their modules' names by ours. Keys and values are one matrix there."""
    state, mine = theirs.state_dict(), {}
    for name in ours.state_dict():
        module, _, kind = name.rpartition(".")
        full = names.get(module)
        if full is None:
            mine[name] = state[names[name]].view(ours.state_dict()[name].shape)
        elif module.endswith(("k_proj", "v_proj")):
            mine[name] = state[f"{full}.{kind}"].chunk(2)["v" in module.split(".")[-1][0]]
        else:
            mine[name] = state[f"{full}.{kind}"]
    ours.load_state_dict(mine)


def resampler_names(depth: int) -> dict[str, str]:
    names = {"latents": "latents", "media_embed": "media_pos_emb", "norm": "norm"}
    for n in range(depth):
        a, b, f = f"blocks.{n}", f"layers.{n}.0", f"layers.{n}.1"
        names |= {f"{a}.norm_tokens": f"{b}.norm_media", f"{a}.norm_latents": f"{b}.norm_latents"}
        names |= {f"{a}.attention.{o}": f"{b}.{t}" for t, o in ATTENTION}
        names |= {f"{a}.attention.{o}": f"{b}.to_kv" for o in ("k_proj", "v_proj")}
        names |= {f"{a}.norm_mlp": f"{f}.0", f"{a}.mlp.fc_1": f"{f}.1", f"{a}.mlp.fc_2": f"{f}.3"}
    return names


CROSS_NAMES = {
    "gate": "attn_gate",
    "mlp_gate": "ff_gate",
    "norm_1": "attn.norm",
    **{f"attention.{o}": f"attn.{t}" for t, o in ATTENTION},
    **{f"attention.{o}": "attn.to_kv" for o in ("k_proj", "v_proj")},
    "norm_2": "ff.0",
    "mlp.fc_1": "ff.1",
    "mlp.fc_2": "ff.3",
}


def assert_same_gradients(theirs: nn.Module, ours: nn.Module, names: dict[str, str]) -> None:
    grads = {n: p.grad for n, p in theirs.named_parameters()}
    for name, p in ours.named_parameters():
        module, _, kind = name.rpartition(".")
        wanted = grads[names[name]] if module not in names else grads[f"{names[module]}.{kind}"]
        if module.endswith(("k_proj", "v_proj")):
            wanted = wanted.chunk(2)["v" in module.split(".")[-1][0]]
        torch.testing.assert_close(p.grad, wanted.view(p.shape), atol=2e-5, rtol=1e-4)  # sums in another order


def test_the_resampler_is_flamingo_pytorchs() -> None:
    theirs = flamingo_pytorch.PerceiverResampler(
        dim=12, depth=2, dim_head=8, heads=3, num_latents=5, num_media_embeds=4
    )
    ours = PerceiverResampler(RESAMPLER, 12, media=4)
    stir(theirs)
    copied(theirs, ours, resampler_names(2))
    x = torch.randn(2, 3, 7, 12)
    weights = torch.randn(2, 3, 5, 12)
    wanted = theirs(x)
    (wanted * weights).sum().backward()
    found = ours(x.flatten(0, 1), torch.arange(3).repeat(2)).unflatten(0, (2, 3))
    (found * weights).sum().backward()
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert_same_gradients(theirs, ours, resampler_names(2))


def beside(locations: Tensor, images: int, tokens: int) -> MaskPlan:
    """The mask of texts whose image j stands at the j-th True of `locations`."""
    query = Layout(locations.shape[1], None, None, locations.cumsum(-1))
    number = torch.arange(1, images + 1).repeat_interleave(tokens)[None]
    plan = media_causal().plan(query, Layout(images * tokens, None, torch.full_like(number, IMAGE), number))
    assert plan is not None
    return plan


def test_gated_cross_attention_is_flamingo_pytorchs() -> None:
    theirs = flamingo_pytorch.GatedCrossAttentionBlock(dim=12, dim_head=8, heads=3)
    ours = GatedCrossAttention(CROSS, 12, 12)
    stir(theirs, 0.5)
    copied(theirs, ours, CROSS_NAMES)
    locations = torch.zeros(2, 9, dtype=torch.bool)
    locations[0, [0, 4, 5]] = locations[1, [2, 3, 8]] = True
    x, media, weights = torch.randn(2, 9, 12), torch.randn(2, 3, 5, 12), torch.randn(2, 9, 12)
    wanted = theirs(x, media, media_locations=locations)
    (wanted * weights).sum().backward()
    found = ours(x, media.flatten(1, 2), beside(locations, 3, 5))
    (found * weights).sum().backward()
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert_same_gradients(theirs, ours, CROSS_NAMES)


@pytest.mark.parametrize("gate", ["scalar", "vector"])
def test_closed_gates_are_the_identity_and_alone_get_a_gradient(gate) -> None:
    cross = GatedCrossAttention(CROSS.replace(gate=gate, activation="swiglu", norm="rms", qk_norm=True), 12, 10)
    x, context = torch.randn(2, 4, 12), torch.randn(2, 6, 10)
    found = cross(x, context)
    assert torch.equal(found, x)
    (found * torch.randn_like(found)).sum().backward()
    moved = {n for n, p in cross.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert moved == {"gate", "mlp_gate"}


def test_without_an_image_it_is_as_if_none_were_seen() -> None:
    cross = GatedCrossAttention(CROSS, 12, 10)
    stir(cross, 0.5)
    x, context = torch.randn(2, 4, 12), torch.randn(2, 6, 10)
    blind = MaskPlan(sees=torch.zeros(2, 1, 1, 1, dtype=torch.bool))
    torch.testing.assert_close(cross(x, context, blind), cross(x, None))


def test_keys_that_were_noted_are_those_of_the_context() -> None:
    cross = GatedCrossAttention(CROSS.replace(qk_norm=True), 12, 10)
    stir(cross, 0.5)
    x, context, noted = torch.randn(2, 4, 12), torch.randn(2, 6, 10), KeyValues()
    cross(x[:, :1], context, None, noted)
    torch.testing.assert_close(cross(x, torch.zeros_like(context), None, noted), cross(x, context))


def test_frames_are_told_apart_and_counted() -> None:
    video = PerceiverResampler(RESAMPLER, 12, frames=3)
    stir(video)
    x = torch.randn(2, 3, 7, 12)
    torch.testing.assert_close(video(x[:, :1]), video(x[:, 0]))  # an image is a video of one frame
    assert video(x).shape == (2, 5, 12)
    assert not torch.allclose(video(x), video(x.flip(1)), atol=1e-3)
    with pytest.raises(ConfigError, match="at most 3 frames; got 4"):
        video(torch.randn(2, 4, 7, 12))
    with pytest.raises(ConfigError, match="which image of its record"):
        PerceiverResampler(RESAMPLER, 12, media=2)(x[:, 0])
    assert PerceiverResampler(RESAMPLER, 12, 2, 3).decay_free() == {"latents", "frame_embed", "media_embed"}
