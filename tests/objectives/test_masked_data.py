import math
from dataclasses import replace

import pytest
import torch

from diptych.core.batch import Batch
from diptych.core.errors import ConfigError, DataError
from diptych.models.convnet import ConvNetConfig
from diptych.models.model import Model
from diptych.nn.draws import uniform
from diptych.nn.patch_masking import PatchMaskingConfig, mask_patches
from diptych.nn.token_masking import TokenMaskingConfig, mask_tokens
from diptych.objectives.contrastive import ContrastiveConfig
from diptych.objectives.masked_data import MaskedDataConfig, asked
from tests.models.small_beit3 import PAPER, small_beit3
from tests.models.writers import VOCAB, stirred, text_batch
from tests.objectives.masked_data_ranks import compute_together, gradient, whole
from tests.objectives.tiny_model import TinyConfig
from tests.reference import beit3 as plain


def contract_model() -> Model:
    return stirred(small_beit3())


def kinds_of(batch: Batch, **settings) -> list[list[int]]:
    objective = MaskedDataConfig(**settings).build(stirred(small_beit3()))
    return [k.tolist() for k in objective.kinds(batch, objective.keys(batch))]


@pytest.mark.parametrize("blocks", [small_beit3().blocks, PAPER], ids=["published", "paper"])
def test_equals_loops_over_records_in_value_and_gradient(blocks):
    batch, config = whole(), MaskedDataConfig()
    objective = config.build(stirred(small_beit3(blocks=blocks))).train()
    losses = objective(batch)
    losses.total.backward()
    assert float(losses.count) == 8

    twin = stirred(small_beit3(blocks=blocks))
    images, texts, patches, tokens = [], [], [], []
    for i, n in enumerate(batch.lengths.tolist()):
        key = batch.sample_keys[i : i + 1]
        third = int(3 * float(uniform(key, "kind of data", 1)))
        has_image, has_text = third != 1, third != 0
        images.append(batch.images[i] if has_image else None)
        texts.append(batch.tokens[i, :n].tolist() if has_text else None)
        how = config.paired_image if has_text else config.image
        patches.append(mask_patches(key, (4, 4), how)[0].nonzero()[:, 0].tolist())
        hide = config.paired_text if has_image else config.text
        found = mask_tokens(batch.tokens[i : i + 1], batch.lengths[i : i + 1], key, hide, VOCAB, VOCAB)
        tokens.append({int(p): int(found.tokens[0, p]) for p in found.masked[0].nonzero()[:, 0]})
    expected = plain.loss(twin, images, texts, patches, tokens)
    expected.backward()
    assert losses.total.item() == pytest.approx(expected.item(), abs=1e-5)
    theirs = dict(twin.named_parameters())
    for name, p in objective.model.named_parameters():
        if p.requires_grad:  # sums in another order; what takes no part has zeros here and nothing there
            other = torch.zeros_like(p) if theirs[name].grad is None else theirs[name].grad
            torch.testing.assert_close(p.grad, other, atol=2e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize("micro_batch", [1, 2, 3])
def test_in_pieces_the_gradient_is_that_of_the_whole(micro_batch):
    once, pieces = gradient(), gradient(micro_batch)
    assert pieces["total"].item() == pytest.approx(once["total"].item(), abs=1e-5)
    assert pieces["gradients"].keys() == once["gradients"].keys()
    for name, g in once["gradients"].items():
        torch.testing.assert_close(pieces["gradients"][name], g, atol=1e-6, rtol=1e-3, msg=name)


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    assert [len(k) for k in kinds_of(whole())] == [3, 2, 3]
    assert not kinds_of(whole().slice(0, 4))[1], "the first rank must have no text by itself"
    alone = gradient()
    ranks = compute_together(tmp_path)
    for kind in ranks[0]:
        results = [r[kind] for r in ranks]
        assert sum(r["total"].item() for r in results) / 2 == pytest.approx(alone["total"].item(), abs=1e-5), kind
        for r in results:
            assert r["gradients"].keys() == alone["gradients"].keys()
            for name, g in alone["gradients"].items():
                torch.testing.assert_close(r["gradients"][name], g, atol=1e-6, rtol=1e-3, msg=f"{kind} {name}")


def test_kinds_come_by_the_key_and_as_often_as_wanted():
    batch = replace(text_batch((4,) * 400), sample_keys=torch.arange(1000, 1400))
    image, text, pair = kinds_of(batch, kinds=(1, 2, 1))
    assert sorted(image + text + pair) == list(range(400))
    assert 70 < len(image) < 130
    assert 170 < len(text) < 230
    again = kinds_of(batch.slice(100, 200), kinds=(1, 2, 1))
    assert again[0] == [i - 100 for i in image if 100 <= i < 200]
    assert kinds_of(batch, kinds=(0, 0, 1))[2] == list(range(400))


def test_what_lacks_a_side_is_what_it_has():
    batch = text_batch((5, 2, 7, 3))
    assert kinds_of(replace(batch, tokens=None, lengths=None)) == [[0, 1, 2, 3], [], []]
    assert kinds_of(replace(batch, images=None, image_record=None, image_ids=None)) == [[], [0, 2, 3], []]
    some = replace(batch, images=batch.images[:2], image_ids=torch.arange(2), image_record=torch.tensor([1, 2]))
    image, text, pair = kinds_of(some, kinds=(0, 0, 1))
    assert (image, text, pair) == ([1], [0, 3], [2])
    objective = MaskedDataConfig(kinds=(0, 0, 1)).build(stirred(small_beit3()))
    assert objective(some).total.isfinite()
    assert float(objective(some).count) == 4
    nothing = Batch(tokens=batch.tokens[:, :2], lengths=torch.full((4,), 2), sample_keys=batch.sample_keys)
    losses = objective(nothing)
    assert (float(losses.total), float(losses.count)) == (0, 0)


@pytest.mark.parametrize("unit", ["token", "word"])
def test_nothing_hidden_leaks(unit):
    """Every token replaced by the mask: then other words and other pixels in the hidden places change only targets."""
    all_masks = TokenMaskingConfig(rate=0.5, replaced=1.0, random=0.0, unit=unit)
    config = MaskedDataConfig(text=all_masks, paired_text=all_masks)
    objective = config.build(stirred(small_beit3())).eval()
    batch = whole()
    if unit == "word":
        batch = replace(batch, word_starts=torch.arange(7).expand(8, -1) % 2 == 1)
        assert "words" in objective.uses
    seen = []
    through = objective.model.through
    objective.model.through = lambda *given: seen.append(given[:2]) or through(*given)
    objective(batch)
    keys, kinds = objective.keys(batch), objective.kinds(batch, objective.keys(batch))
    hidden = mask_tokens(batch.tokens, batch.lengths, keys, all_masks, VOCAB, VOCAB, batch.word_starts).masked
    patches = mask_patches(keys, (4, 4), config.image).unflatten(1, (4, 4))
    pixels = patches.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
    other = replace(
        batch,
        tokens=torch.where(hidden, (batch.tokens + 1) % VOCAB, batch.tokens),
        images=torch.where(pixels, 255 - batch.images, batch.images),
    )
    objective(other)
    for one, two in zip(seen[:3], seen[3:], strict=True):
        for a, b in zip(one, two, strict=True):
            assert a is None or torch.equal(a, b)
    assert not torch.equal(objective.model.codes(batch.images), objective.model.codes(other.images))
    assert [len(k) for k in kinds] == [3, 2, 3]


def test_a_row_counts_once_however_much_of_it_is_hidden():
    masked = torch.tensor([[True, False, True], [False, True, False]])
    found = asked(masked, torch.tensor([[5, 6, 7], [8, 9, 10]]), 2)
    assert found.share.tolist() == [[0.5, 0.5], [1.0, 0.0]]
    assert found.targets[0].tolist() == [5, 7]
    assert found.targets[1, 0] == 9


def test_smoothing_and_the_weight_of_codes():
    batch = whole()
    parts = {w: MaskedDataConfig(code_weight=w).build(stirred(small_beit3()))(batch).total.item() for w in (0, 1, 3)}
    assert parts[3] - parts[0] == pytest.approx(3 * (parts[1] - parts[0]), rel=1e-4)
    smooth = MaskedDataConfig(label_smoothing=0.2).build(stirred(small_beit3()))(batch)
    plain_ = MaskedDataConfig().build(stirred(small_beit3()))(batch)
    assert smooth.total != plain_.total
    torch.testing.assert_close(smooth.parts["mim"], plain_.parts["mim"])


def test_chance_is_that_of_all_being_alike():
    objective = MaskedDataConfig(kinds=(1, 1, 2)).build(small_beit3().build(VOCAB))
    expected = 0.75 * math.log(8) + 0.75 * math.log(VOCAB)
    assert objective.health({}) == {"chance_loss": pytest.approx(expected)}
    assert objective(whole()).total.item() < 1.5 * expected


@pytest.mark.slow
def test_it_learns_a_few_pairs_by_heart_and_then_to_tell_them_apart():
    model = small_beit3(stem=ConvNetConfig(widths=(16, 16), depths=(0, 1), norm="group")).build(VOCAB)
    half = PatchMaskingConfig(rate=0.4, shape="block", min_block=2)
    objective = MaskedDataConfig(image=half, paired_image=half).build(model).train()
    batch = text_batch((5, 4, 7, 3, 4, 6))
    optimizer = torch.optim.Adam([p for p in objective.parameters() if p.requires_grad], 5e-3)
    first = objective(batch).total.item()
    for step in range(80):
        losses = objective(replace(batch, sample_keys=torch.arange(6) + 6 * (step % 4)))
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    assert losses.total < 0.5 * first

    for p in (*model.image_projection.parameters(), *model.text_projection.parameters(), model.log_logit_scale):
        p.requires_grad_(True)
    pairs = ContrastiveConfig().build(model).train()
    optimizer = torch.optim.Adam([p for p in pairs.parameters() if p.requires_grad], 2e-3)
    for _ in range(25):
        total = pairs(batch).total
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert pairs.health(pairs.encode(batch), batch)["batch_i2t_recall_at_1"] == 1


def test_what_it_cannot_use_is_said():
    with pytest.raises(ConfigError, match=r"MaskedData must be given a multiway model .* got Tiny without"):
        MaskedDataConfig().build(TinyConfig().build(10))
    with pytest.raises(ConfigError, match=r"model.codec must be an image tokenizer"):
        MaskedDataConfig().build(small_beit3(codec=None).build(VOCAB))
    with pytest.raises(ConfigError, match=r"kinds must be three proportions"):
        MaskedDataConfig(kinds=(0, 0, 0))
    batch = text_batch((5, 4))
    images = batch.images.repeat(2, 1, 1, 1)
    twice = replace(batch, images=images, image_ids=torch.arange(4), image_record=torch.tensor([0, 0, 1, 1]))
    with pytest.raises(DataError, match="records of one image at most; got 4 images for 2 records"):
        MaskedDataConfig().build(stirred(small_beit3()))(twice)
