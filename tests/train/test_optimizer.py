import pytest
import torch

from diptych.core.errors import ConfigError, TrainingError
from diptych.core.image_format import ImageFormat
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.two_tower import TwoTowerConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.objectives.contrastive import ContrastiveConfig
from diptych.train.optimizer import (
    build_optimizer,
    clip_gradients,
    decayed_names,
    gradient_norm,
    gradient_norms,
    parameter_names,
    rate_factors,
    rates_fact,
    set_lr,
)
from tests.objectives.tiny_model import TinyConfig, tiny_batch


def two_transformers():
    config = TwoTowerConfig(
        image_format=ImageFormat(resolution=16),
        context_length=8,
        embed_dim=8,
        image=VisionTransformerConfig(patch_size=4, width=32, depth=1, heads=2),
        text=TextTransformerConfig(width=32, depth=1, heads=2),
    )
    return ContrastiveConfig().build(config.build(20))


def test_decay_goes_to_matrices_and_nothing_else():
    objective = two_transformers()
    decayed, undecayed = decayed_names(objective)
    known = dict(objective.named_parameters())
    assert sorted(decayed + undecayed) == sorted(known)
    assert all(known[n].ndim >= 2 for n in decayed)
    for name in ("log_logit_scale", "image_tower.position_embed", "text_tower.position_embed", "image_tower.cls_token"):
        assert f"model.{name}" in undecayed
    assert not [n for n in decayed if "norm" in n or n.endswith("bias")]
    for name in (
        "image_tower.patch_embed.weight",
        "text_tower.projection.weight",
        "image_tower.blocks.0.mlp.fc_1.weight",
    ):
        assert f"model.{name}" in decayed


def test_groups_names_and_rates():
    objective = ContrastiveConfig().build(TinyConfig(batch_norm=True).build(20))
    optimizer = build_optimizer(objective, 1e-3, 0.2, (0.9, 0.98), 1e-6)
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.2, 0.0]
    decayed, undecayed = decayed_names(objective)
    assert parameter_names(objective, optimizer) == decayed + undecayed
    assert "model.token_embed.weight" in undecayed  # the model says so
    set_lr(optimizer, 0.5)
    assert [g["lr"] for g in optimizer.param_groups] == [0.5, 0.5]


RATES = (("image", 0.1), ("image_tower.blocks.*", 0.5), ("log_logit_scale", 2.0))


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_parts_have_rates_of_their_own_and_the_last_word_counts(kind):
    objective = two_transformers()
    factors = rate_factors(objective, RATES)
    assert factors["model.image_tower.patch_embed.weight"] == 0.1
    assert factors["model.image_tower.blocks.0.mlp.fc_1.weight"] == 0.5
    assert factors["model.log_logit_scale"] == 2.0
    assert "model.text_tower.token_embed.weight" not in factors
    optimizer = build_optimizer(objective, 1e-3, 0.2, (0.9, 0.98), 1e-6, kind, RATES)
    names = parameter_names(objective, optimizer)
    assert sorted(names) == sorted(n for n, _ in objective.named_parameters())
    set_lr(optimizer, 0.5)
    decayed, _ = decayed_names(objective)
    at = iter(names)
    for group in optimizer.param_groups:
        for _ in group["params"]:
            name = next(at)
            assert group["lr"] == 0.5 * factors.get(name, 1.0), name
            assert group["weight_decay"] == (0.2 if name in decayed else 0.0), name
    assert rates_fact(objective, RATES).endswith("x 1 on the others")
    assert rates_fact(objective, ()) == ""


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_share_of_the_rate_is_a_share_of_step_and_decay(kind):
    """Adam's first step does not depend on the gradient's size: all that differs is the rate."""
    moved = []
    for rates in ((), (("*", 0.25),)):
        torch.manual_seed(0)
        objective = two_transformers()
        before = {n: p.detach().clone() for n, p in objective.named_parameters()}
        optimizer = build_optimizer(objective, 1e-3, 0.2, (0.9, 0.98), 1e-6, kind, rates)
        set_lr(optimizer, 1e-2)
        for p in objective.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()
        moved.append({n: p.detach() - before[n] for n, p in objective.named_parameters()})
    for name, whole in moved[0].items():
        torch.testing.assert_close(moved[1][name], whole / 4, atol=1e-6, rtol=1e-3)


def test_rates_that_name_nothing_that_trains_are_refused():
    objective = two_transformers()
    with pytest.raises(ConfigError, match=r"train\.rates must name towers .* got 'imag'"):
        rate_factors(objective, (("imag", 0.1),))
    for p in objective.model.image_tower.parameters():
        p.requires_grad_(False)
    with pytest.raises(ConfigError, match="got 'image', which is frozen"):
        rate_factors(objective, (("image", 0.1),))


def test_frozen_parameters_are_left_out_and_nothing_to_train_is_refused():
    objective = ContrastiveConfig().build(TinyConfig().build(20))
    for n, p in objective.named_parameters():
        p.requires_grad_(n == "model.log_logit_scale")
    assert len(build_optimizer(objective, 1e-3, 0.2, (0.9, 0.98), 1e-6).param_groups) == 1
    objective.model.log_logit_scale.requires_grad_(False)
    with pytest.raises(TrainingError, match="Unfreeze a tower"):
        build_optimizer(objective, 1e-3, 0.2, (0.9, 0.98), 1e-6)


def test_a_wrong_name_in_decay_free_is_no_silent_decay(monkeypatch):
    objective = ContrastiveConfig().build(TinyConfig().build(20))
    monkeypatch.setattr(type(objective.model), "decay_free", lambda self: {"token_embedding"})
    with pytest.raises(TrainingError, match="got token_embedding"):
        decayed_names(objective)


def test_clipping_scales_the_whole_gradient_at_once():
    objective = ContrastiveConfig().build(TinyConfig().build(20))
    objective(tiny_batch()).total.backward()
    grads = [p.grad.clone() for p in objective.parameters()]
    plain = sum(float((g.double() ** 2).sum()) for g in grads) ** 0.5
    norm = gradient_norm(objective)
    assert norm.item() == pytest.approx(plain, rel=1e-5)
    clip_gradients(objective, 0.0, norm)
    assert all(torch.equal(p.grad, g) for p, g in zip(objective.parameters(), grads, strict=True))
    clip_gradients(objective, plain / 4, norm)
    for p, g in zip(objective.parameters(), grads, strict=True):
        torch.testing.assert_close(p.grad, g / 4, rtol=1e-4, atol=1e-7)
    objective.model.token_embed.weight.grad[0, 0] = torch.inf
    names, norms = gradient_norms(objective)
    assert [n for n, x in zip(names, norms, strict=True) if not torch.isfinite(x)] == ["token_embed.weight"]
    assert len(names) == len(grads)


def test_a_step_that_is_skipped_on_the_device_leaves_weights_and_moments_to_the_bit():
    objective = ContrastiveConfig().build(TinyConfig().build(20))
    optimizer = build_optimizer(objective, 1e-2, 0.2, (0.9, 0.98), 1e-6)

    def step(seed: int, skipped: float) -> None:
        optimizer.zero_grad()
        objective(tiny_batch(seed=seed)).total.backward()
        if skipped:
            objective.model.token_embed.weight.grad.fill_(torch.nan)
        optimizer.found_inf = torch.tensor(skipped)
        optimizer.step()

    def state() -> list[torch.Tensor]:
        moments = [t for s in optimizer.state.values() for t in s.values()]
        return [t.clone() for t in (*objective.parameters(), *moments)]

    step(0, 0.0)
    before = state()
    step(1, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, state(), strict=True))
    step(2, 0.0)
    assert not torch.equal(before[0], state()[0])


def test_muon_takes_the_matrices_inside_and_adamw_the_rest() -> None:
    objective = two_transformers()
    optimizer = build_optimizer(objective, 1e-3, 0.2, (0.9, 0.98), 1e-6, "muon")
    names = parameter_names(objective, optimizer)
    assert sorted(names) == sorted(n for n, _ in objective.named_parameters())
    kinds = [g["muon"] for g in optimizer.param_groups for _ in g["params"]]
    mine = {n for n, muon in zip(names, kinds, strict=True) if muon}
    assert mine
    assert all("blocks" in n and n.endswith("weight") for n in mine)
