import math
from dataclasses import replace

import pytest
import torch

from diptych.core.errors import ConfigError, DataError
from diptych.nn.patch_masking import mask_patches
from diptych.nn.token_masking import TokenMaskingConfig, mask_tokens
from diptych.objectives.flava import FILLED, FlavaObjectiveConfig
from diptych.train.accumulate import Accumulator
from tests.models.small_flava import stirred_flava
from tests.models.writers import text_batch
from tests.objectives.flava_ranks import compute_together, gradient, objective, whole
from tests.objectives.tiny_model import TinyConfig
from tests.reference import flava as plain

PARTS = ("mim", "mlm", "mmm_image", "mmm_text", "matching", "contrast")


def contract_model():
    return stirred_flava()


def test_equals_plain_loops_in_value_and_gradient():
    one, twin, batch = objective(), stirred_flava(), whole()
    kinds = plain.kinds(batch, 0.2, 0.2, 0.4)
    assert set(kinds) == {"image", "text", "pair", "wrong"}
    losses = one(batch)
    losses.total.backward()
    parts = plain.losses(twin, batch, one.config)
    sum(parts.values()).backward()
    for name in PARTS:
        assert losses.parts[name].item() == pytest.approx(parts[name].item(), abs=2e-5), name
        assert losses.parts[name] > 0
    assert losses.total.item() == pytest.approx(sum(parts.values()).item(), abs=1e-4)
    expected = dict(twin.named_parameters())
    for name, p in one.model.named_parameters():
        if p.requires_grad:  # gradients of order 1, sums in another order
            torch.testing.assert_close(p.grad, expected[name].grad, atol=2e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize("micro_batch,kept", [(5, 0), (6, 2)])
def test_in_pieces_the_gradient_is_that_of_the_whole(micro_batch, kept):
    same(gradient(micro_batch, kept), gradient())


def same(found, expected):
    assert found["total"].item() == pytest.approx(expected["total"].item(), abs=1e-5)
    assert found["gradients"].keys() == expected["gradients"].keys()
    for name, g in expected["gradients"].items():
        torch.testing.assert_close(found["gradients"][name], g, atol=1e-5, rtol=1e-3, msg=name)


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    """Kinds, masks and wrong texts are drawn by each sample's key from the same candidates: even these agree."""
    ranks, alone = compute_together(tmp_path), gradient()
    for kind in ranks[0]:
        both = [r[kind] for r in ranks]
        assert sum(r["total"].item() for r in both) / 2 == pytest.approx(alone["total"].item(), abs=1e-5)
        for part, value in alone["parts"].items():
            assert sum(r["parts"][part].item() for r in both) / 2 == pytest.approx(value.item(), abs=1e-5), part
        for r in both:
            same(r | {"total": alone["total"]}, alone)


def sides_apart(image: list[bool], text: list[bool]):
    """A batch of records that lack an image or a text."""
    batch = text_batch(tuple(5 if t else 0 for t in text))
    record = torch.tensor([i for i, there in enumerate(image) if there])
    return replace(
        batch,
        images=batch.images[record],
        image_ids=record,
        image_record=record,
        image_position=torch.zeros(len(record), dtype=torch.int64),
    )


def test_records_of_one_side_are_read_as_that_side():
    batch = sides_apart([True, False, True, True, False], [True, True, False, True, True])
    config = FlavaObjectiveConfig(image_alone=0, text_alone=0, mismatched=0)
    one = config.build(stirred_flava()).train()
    encoded = one.encode(batch)
    assert encoded["pair"].tolist() == [1, 0, 0, 1, 0]
    assert (encoded["mim_count"] > 0).tolist() == [False, False, True, False, False]
    assert (encoded["mlm_count"] > 0).tolist() == [False, True, False, False, True]
    assert (encoded["mmm_text_count"] > 0).tolist() == [True, False, False, True, False]
    pieces = Accumulator(config.build(stirred_flava()).train(), 2)
    assert pieces(batch).losses.total.item() == pytest.approx(one.loss(encoded, batch).total.item(), abs=1e-5)


@pytest.mark.parametrize("image", [True, False])
def test_a_side_alone_is_the_same_whether_drawn_or_given(image):
    """With chance 1 a pair is read as one side; without the other the loss and its gradient are the same."""
    chances = {"image_alone": float(image), "text_alone": float(not image)}
    batch = text_batch((5, 4, 7, 3))
    without = {"tokens": None, "lengths": None, "text_ids": None} if image else {"images": None, "image_ids": None}
    found = [
        FlavaObjectiveConfig(**chances).build(stirred_flava())(b).parts for b in (batch, replace(batch, **without))
    ]
    name = "mim" if image else "mlm"
    assert found[0][name] > 1
    torch.testing.assert_close(found[0], found[1])
    assert all(found[0][n] == 0 for n in PARTS if n != name)


def test_changing_what_is_hidden_changes_only_what_is_to_be_found():
    one = objective(image_alone=0.3, text_alone=0.3, mismatched=0.0, text_masking=TokenMaskingConfig(rate=0.5))
    batch = text_batch((9, 8, 7, 9, 6, 7), seed=3)
    c, model = one.config, one.model.eval()
    cells = mask_patches(batch.sample_keys, model.grid, c.image_masking)
    pixels = cells.view(-1, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    images = torch.where(pixels, 255 - batch.images, batch.images)
    hidden = mask_tokens(
        batch.tokens, batch.lengths, batch.sample_keys, c.text_masking.replace(replaced=1.0, random=0.0), 30, 30
    ).masked
    kept = c.replace(text_masking=c.text_masking.replace(replaced=1.0, random=0.0))
    one = kept.build(model)
    changed = replace(batch, images=images, tokens=torch.where(hidden, 29 - batch.tokens % 20, batch.tokens))
    assert not torch.equal(changed.tokens, batch.tokens)
    before, after = one.encode(batch), one.encode(changed)
    for name in ("image_states", "text_states", "matching", "matched"):
        torch.testing.assert_close(before[name], after[name], atol=0, rtol=0)
    assert not torch.allclose(before["image"], after["image"])  # the contrast sees all


def test_matching_and_contrast_are_of_pairs_alone():
    one = objective(image_alone=0.5, text_alone=0.5)
    losses = one(whole())
    assert losses.parts["matching"] == losses.parts["contrast"] == losses.parts["mmm_image"] == 0
    losses.total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in one.parameters())


def test_a_lone_pair_has_no_wrong_text():
    one = objective(image_alone=0, text_alone=0, mismatched=1.0)
    assert one(whole().slice(0, 1)).parts["matching"] == 0
    all_one = replace(whole(), text_ids=torch.zeros(12, dtype=torch.int64))
    assert one(all_one).parts["matching"] == 0
    assert one(whole()).parts["matching"] > 0


def test_whole_words_are_hidden_where_the_batch_says_where_they_begin():
    config = FlavaObjectiveConfig(image_alone=0, text_alone=1, text_masking=TokenMaskingConfig(rate=0.2, unit="word"))
    one, batch = config.build(stirred_flava()), text_batch((9, 9))
    starts = torch.zeros_like(batch.tokens, dtype=torch.bool)
    starts[:, [1, 5]] = True  # two words of four and three tokens
    counts = one.encode(replace(batch, word_starts=starts))["mlm_count"]
    assert set(counts.tolist()) <= {3.0, 4.0}
    with pytest.raises(DataError, match="unit must be 'token' for batches that do not say where words begin"):
        one(batch)


@pytest.mark.slow
def test_it_learns_a_few_pairs_by_heart():
    config = FlavaObjectiveConfig(image_alone=0.1, text_alone=0.1)
    torch.manual_seed(0)
    one, batch = config.build(stirred_flava()).train(), text_batch((5, 4, 7, 3, 4, 6))
    optimizer = torch.optim.Adam([p for p in one.parameters() if p.requires_grad], 1e-2)
    for step in range(150):
        losses = one(replace(batch, sample_keys=torch.arange(6) + 6 * (step % 8)))
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    assert losses.parts["contrast"] < 0.2
    assert losses.parts["mmm_image"] < 0.5 * math.log(27)
    assert losses.parts["mmm_text"] < 0.5 * math.log(31)


def test_what_was_encoded_in_bfloat16_may_be_judged_outside_of_it():
    one = objective()
    precise = one(whole()).total.item()
    with torch.autocast("cpu", torch.bfloat16):
        encoded = one.encode(whole())
        inside = one.loss(encoded, whole()).total.item()
    assert one.loss(encoded, whole()).total.item() == pytest.approx(precise, rel=0.05)  # three significant digits
    assert inside == pytest.approx(precise, rel=0.05)


def test_health_names_chance_and_cosines():
    one, batch = objective(), whole()
    encoded = one.encode(batch)
    health, pair = one.health(encoded, batch), encoded["pair"] > 0
    n = int(pair.sum())
    matching = -0.4 * math.log(0.4) - 0.6 * math.log(0.6)
    chance = 2 * math.log(27) + 2 * math.log(31) + math.log(n) + matching
    assert health["chance_loss"] == pytest.approx(chance)
    cosines = (encoded["image"] @ encoded["text"].T)[pair][:, pair]
    assert health["positive_cosine"] == pytest.approx(cosines.diagonal().mean().item(), abs=1e-6)
    off = cosines.sum() - cosines.diagonal().sum()
    assert health["negative_cosine"] == pytest.approx(off.item() / (n * n - n), abs=1e-6)
    assert health["pairs"] == pytest.approx(n / 12)


def test_the_codec_never_trains():
    one = objective()
    one(whole()).total.backward()
    assert all(p.grad is None for p in one.model.codec.parameters())
    assert not one.model.codec.training
    assert one.model.training


def test_what_it_cannot_use_is_said():
    with pytest.raises(ConfigError, match="must be given a model of two encoders and a fusion; got Tiny without"):
        FlavaObjectiveConfig().build(TinyConfig().build(10))
    with pytest.raises(ConfigError, match="must be given a model with an image codec"):
        FlavaObjectiveConfig().build(stirred_flava(codec=None))
    with pytest.raises(ConfigError, match=r"chances that add up to 1 at most; got 0\.7"):
        FlavaObjectiveConfig(image_alone=0.7, text_alone=0.4)
    with pytest.raises(ConfigError, match="must be 'ignore' for batches without text_ids"):
        objective()(replace(whole(), text_ids=None, image_ids=None))
    losses = objective(duplicates="ignore")(replace(whole(), text_ids=None, image_ids=None))
    assert all(losses.parts[n] > 0 for n in FILLED)
