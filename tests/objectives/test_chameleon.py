"""The loss of early fusion against its plain form; pieces and ranks; pairs learnt by heart, both ways."""

from dataclasses import replace

import pytest
import torch

from diptych.core.errors import ConfigError
from diptych.models.chameleon import Chameleon
from diptych.models.generate import Generation
from diptych.models.painting import Painting
from diptych.nn.draws import happens
from diptych.objectives.chameleon import MixedModalConfig
from tests.models.test_chameleon import interleaved, small_chameleon, stirred_chameleon
from tests.models.writers import text_batch
from tests.objectives import code_ranks
from tests.objectives.test_dalle import learnt
from tests.objectives.tiny_model import TinyConfig
from tests.reference import chameleon as plain


def contract_model() -> Chameleon:
    return stirred_chameleon()


def masked():
    """Pairs of which only some words bear loss."""
    batch = text_batch((5, 2, 7))
    return replace(batch, loss_mask=torch.rand(3, 7, generator=torch.Generator().manual_seed(0)) < 0.5)


@pytest.mark.parametrize(
    "batch",
    [text_batch((5, 2, 7, 3)), interleaved(), masked(), replace(text_batch((5, 2)), images=None, image_record=None)],
    ids=["pairs", "interleaved", "masked", "text alone"],
)
def test_value_and_gradient_are_those_of_all_logits_at_once(batch):
    if batch.loss_mask is not None:
        batch = replace(batch, loss_mask=batch.loss_mask & (torch.arange(7) < batch.lengths[:, None]))
    found, config = [], MixedModalConfig(text_weight=2.0, image_weight=0.5, z_loss=1e-2)
    first = happens(batch.sample_keys, "image first", 0.5).tolist()
    for way in ("fast", "plain"):
        model = contract_model()
        if way == "fast":
            losses = config.build(model)(batch)
            total, count = losses.total, float(losses.count)
        else:
            total, count = plain.loss(model, plain.rows_of(model, batch, first), 2.0, 0.5, 1e-2)
        total.backward()
        found.append((total.detach(), count, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-5, rtol=1e-5)
    assert found[0][1] == pytest.approx(found[1][1])
    assert found[0][2].keys() == found[1][2].keys()
    for name, grad in found[0][2].items():  # sums in another order
        torch.testing.assert_close(grad, found[1][2][name], atol=1e-5, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


def test_both_orders_come_and_those_of_the_data_stay():
    batch = text_batch((3,) * 8)
    first = happens(batch.sample_keys, "image first", 0.5)
    assert 0 < int(first.sum()) < 8
    objective = MixedModalConfig().build(contract_model())
    placed = replace(batch, image_position=torch.zeros(8, dtype=torch.int64))
    always = MixedModalConfig(image_first=1.0).build(objective.model)
    torch.testing.assert_close(objective(placed).total, always(batch).total)
    assert not torch.allclose(objective(batch).total, always(batch).total, atol=1e-4)


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_pieces_have_the_gradient_of_the_whole_batch(micro_batch):
    code_ranks.same(code_ranks.gradients("chameleon", micro_batch), code_ranks.gradients("chameleon", 0))


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_one(tmp_path):
    expected = code_ranks.gradients("chameleon", 0)
    for found in code_ranks.compute_together("chameleon", tmp_path).values():
        code_ranks.same(found, expected)


def test_the_z_loss_holds_the_logits_down():
    batch = text_batch((5, 2, 7))
    loose = MixedModalConfig(z_loss=0.0).build(contract_model())(batch)
    held = MixedModalConfig(z_loss=0.1).build(contract_model())(batch)
    assert held.total > loose.total
    torch.testing.assert_close(held.parts, loose.parts)


@pytest.mark.slow
def test_pairs_are_learnt_by_heart_written_and_painted_back():
    batch = text_batch((5, 3, 7, 4))
    for row, n in zip(batch.tokens, batch.lengths, strict=True):
        row[0], row[n - 1] = 2, 1  # start and end
    model = learnt(small_chameleon(), MixedModalConfig(), batch, 150, 1e-2)
    codes = model.codes(batch.images)
    painted = model.generate_codes(batch.tokens, batch.lengths, Painting(top_k=1))
    assert torch.equal(painted, codes)
    said = model.generate_text(batch.images, None, Generation(max_tokens=8))
    assert said == [row[1 : n - 1].tolist() for row, n in zip(batch.tokens, batch.lengths, strict=True)]


def test_what_it_is_not_for_is_said():
    with pytest.raises(ConfigError, match="must be given a model whose words and images are one sequence; got Tiny"):
        MixedModalConfig().build(TinyConfig().build(10))
