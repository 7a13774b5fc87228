import math
from dataclasses import replace

import pytest
import torch

from diptych.core.errors import ConfigError, DataError
from diptych.objectives import matching, query_alignment
from diptych.objectives.matching import CHANCE
from diptych.objectives.query_alignment import (
    QueryAlignmentConfig,
    best_query,
    find,
)
from diptych.train.sight import mismatched
from tests.models.small_blip2 import small_blip2
from tests.models.writers import stirred, text_batch
from tests.objectives.query_ranks import compute_together, gradient, whole
from tests.objectives.tiny_model import TinyConfig
from tests.reference import qformer as plain


def same_pairs(batch) -> list[list[bool]]:
    n = len(batch.tokens)

    def shares(i: int, j: int) -> bool:
        return bool(batch.text_ids[i] == batch.text_ids[j] or batch.image_ids[i] == batch.image_ids[j])

    return [[i != j and shares(i, j) for j in range(n)] for i in range(n)]


def test_equals_plain_loops_in_value_and_gradient(monkeypatch):
    batch = whole().slice(0, 4)
    batch = replace(batch, text_ids=torch.tensor([0, 1, 2, 0]))
    wrong = (torch.tensor([1, 3, 0, 2]), torch.tensor([2, 0, 3, 1]))
    calls = iter(wrong)
    every = torch.ones(4)
    monkeypatch.setattr(matching, "draw_negatives", lambda *_: (next(calls), every))
    objective = QueryAlignmentConfig().build(stirred(small_blip2()))
    losses = objective(batch)
    losses.total.backward()

    twin = stirred(small_blip2())
    texts = [row[:n].tolist() for row, n in zip(batch.tokens, batch.lengths.tolist(), strict=True)]
    negatives = tuple(w.tolist() for w in wrong)
    parts = plain.loss(twin, twin.image_features(batch.images), texts, same_pairs(batch), negatives, 0.1)
    sum(parts).backward()
    assert losses.total.item() == pytest.approx(sum(parts).item(), abs=2e-5)
    assert losses.parts["contrast"].item() == pytest.approx(parts[0].item(), abs=1e-5)
    assert losses.parts["matching"].item() == pytest.approx(parts[1].item(), abs=1e-5)
    expected = dict(twin.named_parameters())
    for name, p in objective.model.named_parameters():
        if p.requires_grad:  # gradients of order 1, sums in another order
            torch.testing.assert_close(p.grad, expected[name].grad, atol=2e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize("micro_batch,kept", [(2, 1), (3, 0), (4, 2)])
@pytest.mark.parametrize("frozen", [False, True])
def test_in_pieces_the_gradient_is_that_of_the_whole(micro_batch, kept, frozen):
    once, pieces = gradient(frozen=frozen), gradient(micro_batch, kept, frozen)
    assert pieces["total"].item() == pytest.approx(once["total"].item(), abs=1e-5)
    assert pieces["gradients"].keys() == once["gradients"].keys()
    assert any(n.startswith("image_tower") for n in once["gradients"]) != frozen
    for name, g in once["gradients"].items():
        torch.testing.assert_close(pieces["gradients"][name], g, atol=1e-5, rtol=1e-3, msg=name)


@pytest.mark.slow
def test_two_processes_are_one_matching_and_all(tmp_path):
    """Negatives are drawn by each sample's number from the same candidates, so that even these are the same."""
    ranks = compute_together(tmp_path)
    for kind in ranks[0]:
        both, alone = [r[kind] for r in ranks], gradient(frozen=kind == "frozen")
        assert sum(r["total"].item() for r in both) / 2 == pytest.approx(alone["total"].item(), abs=1e-5)
        for part, value in alone["parts"].items():
            assert sum(r["parts"][part].item() for r in both) / 2 == pytest.approx(value.item(), abs=1e-5), part
        for name, g in alone["gradients"].items():
            for r in both:
                torch.testing.assert_close(r["gradients"][name], g, atol=1e-5, rtol=1e-3, msg=name)


def test_finding_without_duplicates_is_torchs_cross_entropy():
    logits = torch.randn(3, 6)
    none = torch.zeros(3, 6, dtype=torch.bool)
    torch.testing.assert_close(find(logits, 2, none, 0.1), find(logits, 2, None, 0.1))


def test_the_best_query_is_found_some_images_at_a_time(monkeypatch):
    queries, text = torch.randn(5, 3, 4), torch.randn(6, 4)
    whole_ = best_query(queries, text)
    monkeypatch.setattr(query_alignment, "TILE", 40)
    torch.testing.assert_close(best_query(queries, text), whole_)
    assert whole_[2, 1] == pytest.approx(max(float(q @ text[1]) for q in queries[2]), abs=1e-6)


@pytest.mark.slow
def test_it_learns_a_few_pairs_by_heart():
    objective = QueryAlignmentConfig(label_smoothing=0, writing_smoothing=0).build(small_blip2().build(30))
    batch = text_batch((5, 4, 7, 3, 4, 6))
    optimizer = torch.optim.Adam(objective.parameters(), 1e-2)
    for step in range(400):  # other negatives at each step, as in a run
        losses = objective(replace(batch, sample_keys=torch.arange(6) + 6 * step))
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    assert losses.parts["foreseen"] == 1
    assert losses.parts["matched"] > 0.8  # a match is learned last; always saying no is right in two of three
    assert losses.parts["contrast"] < 0.1


def test_what_was_encoded_in_bfloat16_may_be_judged_outside_of_it():
    objective = QueryAlignmentConfig().build(stirred(small_blip2()))
    precise = objective(whole()).total.item()
    with torch.autocast("cpu", torch.bfloat16):
        encoded = objective.encode(whole())
        inside = objective.loss(encoded, whole()).total.item()
    assert encoded["queries"].dtype == encoded["text"].dtype == torch.float32
    assert objective.loss(encoded, whole()).total.item() == pytest.approx(precise, rel=0.05)  # three significant digits
    assert inside == pytest.approx(precise, rel=0.05)


def test_where_all_are_one_there_is_nothing_to_tell_apart():
    batch = replace(text_batch((5, 2, 7)), text_ids=torch.zeros(3, dtype=torch.int64))
    objective = QueryAlignmentConfig(writing=0.0).build(stirred(small_blip2()))
    losses = objective(batch)
    assert losses.parts["contrast"].item() == pytest.approx(0, abs=1e-6)
    losses.total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in objective.parameters())


def test_health_names_chance_and_cosines():
    objective = QueryAlignmentConfig().build(stirred(small_blip2()))
    batch = whole()
    encoded = objective.encode(batch)
    health = objective.health(encoded, batch)
    assert health["chance_loss"] == pytest.approx(math.log(8) + CHANCE + math.log(30))
    assert pytest.approx(-math.log(1 / 3) / 3 - 2 * math.log(2 / 3) / 3) == CHANCE
    cosines = best_query(encoded["queries"], encoded["text"])
    assert health["positive_cosine"] == pytest.approx(cosines.diagonal().mean().item(), abs=1e-6)
    assert health["duplicate_captions"] == health["duplicate_images"] == 2 / 8


def test_a_table_of_image_tokens_gives_the_same_loss():
    batch = whole()
    objective = QueryAlignmentConfig().build(stirred(small_blip2()))
    cached = replace(batch, images=None, cached={"image": objective.model.image_vectors(batch.images)})
    assert objective(cached).total.item() == pytest.approx(objective(batch).total.item(), abs=1e-5)
    assert mismatched(cached) is not None


def test_what_it_cannot_use_is_said():
    with pytest.raises(ConfigError, match=r"QueryAlignment must be given a model with a Q-Former .* got Tiny without"):
        QueryAlignmentConfig().build(TinyConfig().build(10))
    objective = QueryAlignmentConfig().build(stirred(small_blip2()))
    with pytest.raises(DataError, match="must be given batches of images and texts"):
        objective(replace(whole(), tokens=None))
    with pytest.raises(DataError, match="one image a text; got 0 images for 8 texts"):
        objective(replace(whole(), images=None))
    with pytest.raises(ConfigError, match="must be 'ignore' for batches without text_ids"):
        objective(replace(whole(), text_ids=None, image_ids=None))
