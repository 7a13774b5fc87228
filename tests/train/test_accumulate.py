import copy

import pytest
import torch
from torch import nn

from diptych.core.batch import Batch
from diptych.core.errors import ConfigError, TrainingError
from diptych.core.image_format import ImageFormat
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.two_tower import TwoTowerConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.objectives.contrastive import ContrastiveConfig
from diptych.objectives.objective import Losses, Objective
from diptych.objectives.sigmoid import SigmoidConfig
from diptych.train.accumulate import Accumulator, Way
from diptych.train.batch_norms import batch_norms
from tests.objectives.tiny_model import TinyConfig, tiny_batch
from tests.reference.accumulate import in_pieces
from tests.train import ranks

IDS = {"text_ids": [7, 1, 7, 3, 4, 1, 8, 9, 10, 11], "image_ids": [0, 1, 2, 3, 3, 5, 6, 7, 8, 9]}


class Uncoupled(Objective):
    """Mean squared size of token embeddings: each real token is a term, so pieces have unequal counts."""

    def forward(self, batch: Batch) -> Losses:
        real = torch.arange(batch.tokens.shape[1]) < batch.lengths[:, None]
        terms = self.model.token_embed(batch.tokens)[real].pow(2).mean(1)
        return Losses(terms.mean(), real.sum(), {"size": terms.detach().mean()})


def grads(objective: nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in objective.named_parameters() if p.grad is not None}


def assert_same_gradient(a: dict, b: dict, atol: float = 1e-6, rtol: float = 1e-4) -> None:
    """Two orders of summation in float32 differ by a few units in the last place of the largest term."""
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=atol, rtol=rtol, msg=lambda m, name=name: f"{name}: {m}")


def small_vit() -> TwoTowerConfig:
    return TwoTowerConfig(
        image_format=ImageFormat(resolution=16),
        context_length=8,
        embed_dim=8,
        image=VisionTransformerConfig(patch_size=4, width=32, depth=1, heads=2, patch_dropout=0.5),
        text=TextTransformerConfig(width=32, depth=1, heads=2),
    )


@pytest.mark.parametrize("config", [ContrastiveConfig(label_smoothing=0.1), SigmoidConfig()], ids=lambda c: c.kind())
@pytest.mark.parametrize(("micro_batch", "kept"), [(1, 1), (3, 0), (3, 2), (3, 9), (5, 1)])
def test_cached_pieces_have_the_gradient_of_the_whole_batch(config, micro_batch, kept):
    objective = config.build(TinyConfig(bias=isinstance(config, SigmoidConfig)).build(20))
    batch = tiny_batch(10, **IDS)
    whole = Accumulator(objective)(batch)
    expected = grads(objective)
    objective.zero_grad()
    pieces = Accumulator(objective, micro_batch, kept=kept)(batch)
    assert pieces.losses.total.item() == pytest.approx(whole.losses.total.item(), rel=1e-6)
    assert "model.log_logit_scale" in expected
    assert_same_gradient(grads(objective), expected)
    torch.testing.assert_close(pieces.encoded["image"], whole.encoded["image"])
    plain = in_pieces(copy.deepcopy(objective), batch, 10)
    assert plain.total.item() == pytest.approx(whole.losses.total.item(), rel=1e-6)


class Counted:
    """Stands before an objective's `encode` and counts its passes."""

    def __init__(self, objective: Objective) -> None:
        self.real, self.with_graph, self.without = objective.encode, 0, 0

    def __call__(self, batch: Batch) -> dict[str, torch.Tensor]:
        self.with_graph += torch.is_grad_enabled()
        self.without += not torch.is_grad_enabled()
        return self.real(batch)


def test_pieces_whose_graph_is_kept_are_encoded_once_and_the_loss_is_taken_once(monkeypatch):
    objective = ContrastiveConfig().build(TinyConfig().build(20))
    losses = iter(range(1, 100))
    real = objective.loss
    monkeypatch.setattr(objective, "loss", lambda *a: (next(losses), real(*a))[1])
    for kept, without in ((0, 4), (1, 3), (3, 1), (9, 1)):
        counted = Counted(objective)
        monkeypatch.setattr(objective, "encode", counted)
        Accumulator(objective, 3, kept=kept)(tiny_batch(10))
        assert (counted.with_graph, counted.without) == (4, without)
        monkeypatch.setattr(objective, "encode", counted.real)
    assert next(losses) == 5


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_dropout_and_patch_dropout_are_drawn_again_alike(kept):
    torch.manual_seed(1)
    objective = ContrastiveConfig().build(small_vit().build(20)).train()
    batch = tiny_batch(10, **IDS)
    batch = Batch(**{**vars(batch), "images": torch.randint(0, 256, (10, 3, 16, 16), dtype=torch.uint8)})
    torch.manual_seed(5)
    expected_loss = in_pieces(objective, batch, 4)
    expected = grads(objective)
    after = torch.get_rng_state()
    objective.zero_grad()
    torch.manual_seed(5)
    found = Accumulator(objective, 4, kept=kept)(batch)
    assert torch.equal(torch.get_rng_state(), after)
    assert found.losses.total.item() == pytest.approx(expected_loss.total.item(), rel=1e-6)
    assert_same_gradient(grads(objective), expected)
    objective.zero_grad()  # and the draws do matter: other ones give another gradient
    torch.manual_seed(6)
    Accumulator(objective, 4, kept=kept)(batch)
    assert not torch.allclose(grads(objective)["model.log_logit_scale"], expected["model.log_logit_scale"], rtol=1e-3)


def test_gradients_add_to_what_is_there_and_repeat_to_the_bit():
    objective = ContrastiveConfig().build(TinyConfig(dropout=0.3).build(20)).train()
    batch, accumulate = tiny_batch(10), Accumulator(objective, 3)
    found = []
    for _ in range(2):
        objective.zero_grad()
        torch.manual_seed(0)
        accumulate(batch)
        found.append(grads(objective))
    assert all(torch.equal(found[0][n], found[1][n]) for n in found[0])
    torch.manual_seed(0)
    accumulate(batch)
    for name, grad in grads(objective).items():
        torch.testing.assert_close(grad, 2 * found[0][name])


def test_uncoupled_pieces_are_weighted_by_their_terms():
    objective = Uncoupled(TinyConfig().build(20))
    batch = tiny_batch(10)
    objective(batch).total.backward()
    expected = grads(objective)
    for micro_batch in (0, 1, 4):
        objective.zero_grad()
        found = Accumulator(objective, micro_batch)(batch)
        assert found.losses.total.item() == pytest.approx(objective(batch).total.item(), rel=1e-6)
        assert found.losses.parts["size"].item() == pytest.approx(objective(batch).total.item(), rel=1e-6)
        assert_same_gradient(grads(objective), expected)


@pytest.mark.parametrize("kept", [0, 1])
def test_batch_norm_notes_each_piece_once_and_in_order(kept):
    model = TinyConfig(batch_norm=True).build(20)
    objective = ContrastiveConfig().build(model).train()
    twin = copy.deepcopy(objective)
    batch = tiny_batch(10)
    in_pieces(twin, batch, 5)
    Accumulator(objective, 5, kept=kept)(batch)
    (norm,), (expected,) = batch_norms(objective), batch_norms(twin)
    assert norm.num_batches_tracked == expected.num_batches_tracked == 2
    torch.testing.assert_close(norm.running_mean, expected.running_mean)
    torch.testing.assert_close(norm.running_var, expected.running_var)
    assert_same_gradient(grads(objective), grads(twin))


def test_bfloat16_gives_nearly_the_same_gradient():
    objective = ContrastiveConfig().build(TinyConfig().build(20))
    batch = tiny_batch(10)
    Accumulator(objective)(batch)
    exact = grads(objective)
    for micro_batch in (0, 4):
        objective.zero_grad()
        Accumulator(objective, micro_batch, "bfloat16")(batch)
        for name, grad in grads(objective).items():
            assert grad.dtype == torch.float32
            # 8 bits of mantissa and a few additions
            assert (grad - exact[name]).norm() < 0.03 * exact[name].norm() + 1e-3, name


def test_losses_without_gradient_are_those_of_the_batch():
    batch = tiny_batch(10, **IDS)
    for objective in (ContrastiveConfig().build(TinyConfig().build(20)), Uncoupled(TinyConfig().build(20))):
        total = Accumulator(objective, 3).loss_only(batch).total
        assert not total.requires_grad
        assert total.item() == pytest.approx(objective(batch).total.item(), rel=1e-6)


@pytest.mark.parametrize("kept", [0, 2])
def test_a_frozen_tower_or_both_leave_the_others_gradient_as_it_was(kept):
    objective = ContrastiveConfig().build(TinyConfig().build(20))
    batch = tiny_batch(10)
    objective.model.image_tower.requires_grad_(False)
    for also in (None, objective.model.token_embed, objective.model.text_projection):
        if also is not None:
            also.requires_grad_(False)
        objective.zero_grad()
        Accumulator(objective)(batch)
        expected = grads(objective)
        objective.zero_grad()
        Accumulator(objective, 3, kept=kept)(batch)
        assert_same_gradient(grads(objective), expected)
    assert expected.keys() == {"model.log_logit_scale"}


def test_frozen_parameters_and_negative_pieces():
    objective = ContrastiveConfig().build(TinyConfig().build(20))
    objective.model.token_embed.weight.requires_grad_(False)
    Accumulator(objective, 3)(tiny_batch(10))
    assert objective.model.token_embed.weight.grad is None
    with pytest.raises(ConfigError, match="micro_batch must be at least 0"):
        Accumulator(objective, -1)


def out_of_memory_above(monkeypatch, objective: Objective, pairs: int) -> None:
    """An encoder for which there is memory for so many pairs with gradient, and no more."""
    real = objective.encode

    def encode(batch: Batch) -> dict[str, torch.Tensor]:
        encoded = real(batch)  # draws and notes before it fails
        if torch.is_grad_enabled() and batch.size > pairs:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")
        return encoded

    monkeypatch.setattr(objective, "encode", encode)


def test_the_first_batch_that_does_not_fit_is_taken_in_a_leaner_way(monkeypatch, capsys):
    objective = ContrastiveConfig().build(TinyConfig(dropout=0.2, batch_norm=True).build(20)).train()
    twin, batch = copy.deepcopy(objective), tiny_batch(11)  # no piece of one: batch norm refuses it
    out_of_memory_above(monkeypatch, objective, 3)
    accumulate = Accumulator(objective)
    accumulate.leaner = leaner = lambda way, pairs: {0: Way(6), 6: Way(3, checkpoint=True)}.get(way.micro_batch)
    for one, of in ((Accumulator(twin, 3), twin), (accumulate, objective)):
        torch.manual_seed(2)
        one(batch)
        found, expected = grads(of), grads(twin)
    assert all(torch.equal(found[n], expected[n]) for n in expected)
    assert all(torch.equal(a, b) for a, b in zip(objective.buffers(), twin.buffers(), strict=True))
    assert accumulate.way.micro_batch == 3
    said = capsys.readouterr().err
    assert "does not fit into memory (CUDA out of memory); it is tried again: 2 pieces of 6 pairs" in said
    assert leaner(accumulate.way, 11) is None


def test_without_memory_the_user_is_told_what_to_do(monkeypatch):
    objective = ContrastiveConfig().build(TinyConfig().build(20))
    accumulate = Accumulator(objective, 4)
    accumulate(tiny_batch(10))
    accumulate.leaner = lambda way, pairs: Way(1)  # weights have moved since: it is not asked
    out_of_memory_above(monkeypatch, objective, 3)
    with pytest.raises(TrainingError, match=r"it was 4\), set train.checkpoint_activations=true"):
        accumulate(tiny_batch(10))


@pytest.mark.dist
def test_two_processes_have_the_loss_and_gradient_of_one(two_processes):
    """The tolerance is float32's: the two sums are split elsewhere, everything else is the same arithmetic."""
    for micro_batch in (0, 4):
        alone = ranks.gradients(micro_batch)
        pair = [torch.load(two_processes / f"{micro_batch}-{r}.pt", weights_only=True) for r in (0, 1)]
        assert len(alone) > 30
        for name, expected in alone.items():
            assert torch.equal(pair[0][name], pair[1][name]), f"ranks disagree on {name}"
            torch.testing.assert_close(pair[0][name], expected, atol=2e-6, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    objective = ranks.objectives()["mask"]
    batch = tiny_batch(12, **ranks.IDS)
    health = objective.health(objective.encode(batch), batch)
    assert torch.load(two_processes / "health-1.pt", weights_only=True) == pytest.approx(health, rel=1e-5, abs=1e-6)
