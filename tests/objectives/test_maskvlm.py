import math
from dataclasses import replace

import pytest
import torch

from diptych.core.errors import ConfigError, DataError
from diptych.nn.patch_masking import PatchMaskingConfig, mask_patches
from diptych.nn.token_masking import TokenMaskingConfig, mask_tokens
from diptych.objectives import matching
from diptych.objectives.contrastive import ContrastiveConfig
from diptych.objectives.maskvlm import MutualMaskingConfig
from diptych.objectives.matching import CHANCE
from tests.models.small_maskvlm import small_conv_maskvlm, small_maskvlm
from tests.models.writers import VOCAB, stirred, text_batch
from tests.objectives.maskvlm_ranks import compute_together, gradient, whole
from tests.objectives.tiny_model import TinyConfig
from tests.reference import maskvlm as plain


def contract_model():
    return stirred(small_maskvlm())


def corrupted(model, batch, config: MutualMaskingConfig) -> list[plain.Corrupted]:
    """What the draws of a batch hide, pair by pair."""
    cells = mask_patches(batch.sample_keys, model.fill_grid(), config.patches)
    keys, lengths = batch.sample_keys, batch.lengths
    text = mask_tokens(batch.tokens, lengths, keys, config.tokens, model.mask_id, VOCAB)
    return [
        plain.Corrupted(cells[i].nonzero()[:, 0].tolist(), text.tokens[i, :n].tolist(), where.nonzero()[:, 0].tolist())
        for i, (n, where) in enumerate(zip(lengths.tolist(), text.masked, strict=True))
    ]


def test_equals_plain_loops_in_value_and_gradient(monkeypatch):
    batch = replace(whole().slice(0, 4), text_ids=torch.tensor([0, 1, 2, 0]))
    wrong = (torch.tensor([1, 3, 0, 2]), torch.tensor([2, 0, 3, 1]))
    calls = iter(wrong)
    monkeypatch.setattr(matching, "draw_negatives", lambda *_: (next(calls), torch.ones(4)))
    config = MutualMaskingConfig(mim=2.0, mlm=0.5, label_smoothing=0.1)
    objective = config.build(stirred(small_maskvlm()))
    losses = objective(batch)
    losses.total.backward()

    twin = stirred(small_maskvlm())
    texts = [row[:n].tolist() for row, n in zip(batch.tokens, batch.lengths.tolist(), strict=True)]
    ids = (batch.text_ids.tolist(), batch.image_ids.tolist())
    negatives = tuple(w.tolist() for w in wrong)
    parts = plain.loss(twin, batch.images, texts, corrupted(twin, batch, config), ids, negatives, 0.1)
    total = 2.0 * parts[0] + 0.5 * parts[1] + parts[2] + parts[3]
    total.backward()
    for name, part in zip(("mim", "mlm", "contrast", "matching"), parts, strict=True):
        assert losses.parts[name].item() == pytest.approx(part.item(), abs=1e-5), name
    assert losses.total.item() == pytest.approx(total.item(), abs=2e-5)
    expected = dict(twin.named_parameters())
    for name, p in objective.model.named_parameters():
        if p.requires_grad:  # gradients of order 1, sums in another order
            torch.testing.assert_close(p.grad, expected[name].grad, atol=2e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize("kind", ["vit", "conv"])
@pytest.mark.parametrize(("micro_batch", "kept"), [(2, 1), (3, 0), (4, 2)])
def test_in_pieces_the_gradient_is_that_of_the_whole(kind, micro_batch, kept):
    once, pieces = gradient(kind), gradient(kind, micro_batch, kept)
    assert pieces["total"].item() == pytest.approx(once["total"].item(), abs=1e-5)
    assert pieces["gradients"].keys() == once["gradients"].keys()
    for name, g in once["gradients"].items():
        torch.testing.assert_close(pieces["gradients"][name], g, atol=1e-5, rtol=1e-3, msg=name)


@pytest.mark.slow
def test_two_processes_are_one_with_what_they_hide_and_whom_they_confuse(tmp_path):
    ranks = compute_together(tmp_path)
    assert all("Set model.tied=false" in r.pop("refused") for r in ranks)
    for kind in ranks[0]:
        both, alone = [r[kind] for r in ranks], gradient(kind.split()[0])
        assert sum(r["total"].item() for r in both) / 2 == pytest.approx(alone["total"].item(), abs=1e-5), kind
        for part, value in alone["parts"].items():
            assert sum(r["parts"][part].item() for r in both) / 2 == pytest.approx(value.item(), abs=1e-5), part
        for name, g in alone["gradients"].items():
            for r in both:
                torch.testing.assert_close(r["gradients"][name], g, atol=1e-5, rtol=1e-3, msg=f"{kind} {name}")


def only(**weights: float) -> MutualMaskingConfig:
    return MutualMaskingConfig(**{"mim": 0.0, "mlm": 0.0, "contrast": 0.0, "matching": 0.0} | weights)


@pytest.mark.parametrize("small", [small_maskvlm, small_conv_maskvlm])
def test_hidden_pixels_teach_the_text_tower_and_hidden_tokens_the_image_tower(small):
    """The modalities meet: each loss reaches the weights of both towers, those of the other's through its attention."""
    for name, other, own in (("mim", "text_tower", "image_tower"), ("mlm", "image_tower", "text_tower")):
        objective = only(**{name: 1.0}).build(stirred(small()))
        objective(text_batch((5, 4, 7, 3))).total.backward()
        for tower in (other, own):
            read = [
                (n, p)
                for n, p in objective.model.named_parameters()
                if n.startswith(tower) and p.requires_grad and "mask_token" not in n
            ]
            assert read
            silent = [n for n, p in read if p.grad is None or not p.grad.abs().sum() > 0]
            assert not [n for n in silent if not n.endswith("k_proj.bias")], (name, silent)  # softmax cancels those


@pytest.mark.parametrize("small", [small_maskvlm, small_conv_maskvlm])
def test_what_is_hidden_does_not_leak(small):
    """Other content in hidden places changes neither what is painted nor what is foreseen: only what it is held
    against, and the passes over the whole."""
    objective = MutualMaskingConfig(tokens=TokenMaskingConfig(rate=0.3, replaced=1.0, random=0.0)).build(
        stirred(small())
    )
    model, batch = objective.model, text_batch((5, 4, 7, 3))
    patches = mask_patches(batch.sample_keys, model.fill_grid(), objective.config.patches)
    before = objective._views(batch, batch.sample_keys)
    where = patches.view(-1, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    images = torch.where(where, 255 - batch.images, batch.images)
    tokens = torch.where(before.hidden.masked, (batch.tokens + 1) % VOCAB, batch.tokens)
    after = objective._views(replace(batch, images=images, tokens=tokens), batch.sample_keys)
    assert not torch.allclose(after.image, before.image)
    torch.testing.assert_close(after.masked_image, before.masked_image)
    assert torch.equal(after.hidden.tokens, before.hidden.tokens)
    torch.testing.assert_close(after.masked_text, before.masked_text)


def test_as_much_is_hidden_as_asked():
    model, batch = stirred(small_maskvlm()), text_batch((9, 4, 7, 3))
    config = MutualMaskingConfig(patches=PatchMaskingConfig(rate=0.5), tokens=TokenMaskingConfig(rate=1.0))
    objective = config.build(model)
    assert objective._views(batch, batch.sample_keys).places.shape == (4, 8)
    assert objective.encode(batch)["targets"].tolist() == [7, 2, 5, 1]
    assert MutualMaskingConfig().patches.rate == 0.6
    assert MutualMaskingConfig().tokens.rate == 0.3


def test_contrast_alone_is_the_contrastive_loss():
    batch, model = whole(), stirred(small_maskvlm())
    alone = ContrastiveConfig(label_smoothing=0.2).build(model)(batch).total.item()
    ours = only(contrast=1.0).replace(label_smoothing=0.2).build(model)(batch)
    assert ours.total.item() == pytest.approx(alone, abs=1e-6)


def test_whole_words_are_hidden_where_asked():
    config = MutualMaskingConfig(tokens=TokenMaskingConfig(rate=0.4, unit="word"))
    objective = config.build(stirred(small_maskvlm()))
    assert "words" in objective.uses
    starts = torch.zeros(2, 9, dtype=torch.bool)
    starts[:, ::3] = True
    batch = replace(text_batch((9, 9)), word_starts=starts)
    masked = objective._views(batch, batch.sample_keys).hidden.masked
    assert all(row[1:3].unique().numel() == 1 and row[3:6].unique().numel() == 1 for row in masked)


def test_health_names_chance_and_cosines():
    objective, batch = MutualMaskingConfig().build(stirred(small_maskvlm())), whole()
    encoded = objective.encode(batch)
    health = objective.health(encoded, batch)
    pixels = objective.model.normalise(batch.images).abs()
    guessed = health["chance_loss"] - CHANCE - math.log(VOCAB)
    pairs = ContrastiveConfig().build(objective.model).health(encoded, batch)["chance_loss"]
    assert guessed - pairs == pytest.approx(encoded["blank"].mean().item(), abs=1e-5)
    assert encoded["blank"].mean().item() == pytest.approx(pixels.mean().item(), rel=0.1)
    assert health["duplicate_captions"] == health["duplicate_images"] == 2 / 8
    assert "chance_terms" not in health
    assert {"logit_scale", "positive_cosine", "negative_cosine", "batch_i2t_recall_at_1"} <= health.keys()


def test_what_was_encoded_in_bfloat16_may_be_judged_outside_of_it():
    objective = MutualMaskingConfig().build(stirred(small_conv_maskvlm("batch"))).eval()
    precise = objective(whole()).total.item()
    with torch.autocast("cpu", torch.bfloat16):
        encoded = objective.encode(whole())
        inside = objective.loss(encoded, whole()).total.item()
    assert objective.loss(encoded, whole()).total.item() == pytest.approx(precise, rel=0.05)  # three significant digits
    assert inside == pytest.approx(precise, rel=0.05)


@pytest.mark.slow
def test_it_learns_a_few_pairs_by_heart():
    torch.manual_seed(0)
    objective = MutualMaskingConfig(tokens=TokenMaskingConfig(rate=0.3, replaced=1.0, random=0)).build(
        small_conv_maskvlm().build(VOCAB)
    )
    batch = text_batch((5, 4, 7, 3, 4, 6))
    optimizer = torch.optim.Adam(objective.parameters(), 3e-3)
    first = objective(batch)
    for _ in range(150):
        losses = objective(batch)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    assert losses.parts["matched"] == losses.parts["foreseen"] == 1
    assert losses.parts["contrast"] < 0.1
    assert losses.parts["mim"] < 0.7 * first.parts["mim"]  # even noise can be learnt by heart


def test_what_it_cannot_use_is_said():
    with pytest.raises(ConfigError, match="whose modalities look at each other; got Tiny without image_states"):
        MutualMaskingConfig().build(TinyConfig().build(10))
    objective = MutualMaskingConfig().build(stirred(small_maskvlm()))
    for missing in ("tokens", "images"):
        with pytest.raises(DataError, match="one image and one text a record"):
            objective(replace(whole(), **{missing: None}))
    with pytest.raises(ConfigError, match="must be 'ignore' for batches without text_ids"):
        objective(replace(whole(), text_ids=None, image_ids=None))
    MutualMaskingConfig(duplicates="ignore").build(objective.model)(replace(whole(), text_ids=None, image_ids=None))
