from dataclasses import replace

import pytest
import torch

from diptych.core.errors import DataError
from diptych.models.capabilities import capabilities_of
from diptych.models.generate import Generation
from tests.models.small_blip2 import small_blip2
from tests.models.writers import greedy_again, stirred, summed, text_batch
from tests.reference import qformer as plain

M = 4
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}
"""fp32 sums in another order."""


def texts_of(batch) -> list[list[int]]:
    return [row[:n].tolist() for row, n in zip(batch.tokens, batch.lengths.tolist(), strict=True)]


@pytest.mark.parametrize("seen", ["isolated", "full", "visible"])
def test_queries_and_text_are_those_of_each_pair_alone(seen):
    model, batch = stirred(small_blip2()), text_batch((5, 2))
    features = model.image_features(batch.images)
    together = model.together(features, batch.tokens, batch.lengths, seen)
    for image, ids, found in zip(features, texts_of(batch), together, strict=True):
        expected = plain.pair(model, image, ids, seen)
        torch.testing.assert_close(found[: M + len(ids)], expected, **TOLERANCE)


def test_one_pass_for_contrast_and_writing_is_the_function_of_two_in_value_and_gradient():
    batch, found = text_batch((5, 2, 7)), []
    for one_pass in (True, False):
        model = stirred(small_blip2())
        features = model.image_features(batch.images)
        if one_pass:
            queries, text, written = model.align(features, batch.tokens, batch.lengths)
        else:
            queries = model.unit_queries(model.qformer(features))
            text = model.unit_text(model.together(features, batch.tokens, batch.lengths, "isolated")[:, M])
            written = model.writing_head(model.together(features, batch.tokens, batch.lengths, "visible")[:, M:])
        hidden = model.next_tokens(written, batch).hidden
        g = torch.Generator().manual_seed(1)
        (sum((x * torch.randn(x.shape, generator=g)).sum() for x in (queries, text, hidden))).backward()
        found.append((queries, text, hidden, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    for a, b in zip(found[0][:3], found[1][:3], strict=True):
        torch.testing.assert_close(a, b, **TOLERANCE)
    assert found[0][3].keys() == found[1][3].keys()
    for name, grad in found[0][3].items():
        torch.testing.assert_close(grad, found[1][3][name], atol=2e-4, rtol=1e-4)  # gradients are up to some tens


def test_who_sees_whom():
    model, batch = stirred(small_blip2()), text_batch((5, 5))
    features, other = model.image_features(batch.images), model.image_features(255 - batch.images)
    changed = batch.tokens.clone()
    changed[:, 3] = (changed[:, 3] + 1) % 30
    lengths = batch.lengths

    def same(a, b):
        return torch.isclose(a, b, atol=1e-6).all(2).all(0).tolist()

    isolated = model.together(features, batch.tokens, lengths, "isolated")
    assert same(isolated, model.together(other, batch.tokens, lengths, "isolated")) == [False] * 4 + [True] * 5
    assert same(isolated, model.together(features, changed, lengths, "isolated")) == [True] * 4 + [False] * 5
    full = model.together(features, batch.tokens, lengths, "full")
    assert not any(same(full, model.together(features, changed, lengths, "full")))
    visible = model.together(features, batch.tokens, lengths, "visible")
    assert same(visible, model.together(features, changed, lengths, "visible")) == [True] * 7 + [False] * 2
    assert not any(same(visible, model.together(other, batch.tokens, lengths, "visible")))


def test_likelihoods_are_those_of_predict_and_of_plain_loops():
    model, batch = stirred(small_blip2()), text_batch((5, 2, 7))
    grid = model.log_likelihood(batch.images, batch.tokens, batch.lengths)
    features = model.image_features(batch.images)
    for shift in range(3):
        turned = replace(batch, images=batch.images.roll(shift, 0))
        torch.testing.assert_close(grid[(torch.arange(3) - shift) % 3, torch.arange(3)], summed(model, turned))
    for i, ids in enumerate(texts_of(batch)):
        log_p = plain.written(model, features[i], ids).log_softmax(-1)
        torch.testing.assert_close(grid[i, i], log_p.gather(1, torch.tensor(ids[1:])[:, None]).sum(), **TOLERANCE)


def test_it_writes_what_reading_anew_each_time_would_write():
    model, batch = stirred(small_blip2(), seed=4), text_batch((5, 2, 7))
    prompts = [[2, 5], [2], [2, 7, 8]]
    said = model.generate_text(batch.images, prompts, Generation(start_id=2, end_id=1, max_tokens=6))
    again = [greedy_again(model, i, p, 1, 6) for i, p in zip(batch.images, prompts, strict=True)]
    assert said == again


def test_scores_are_log_odds_of_a_match_or_the_largest_cosine():
    batch = text_batch((5, 2, 7))
    model = stirred(small_blip2())
    scores = model.score(batch.images, batch.tokens, batch.lengths)
    similar = stirred(small_blip2(scored_by="similarity")).score(batch.images, batch.tokens, batch.lengths)
    features = model.image_features(batch.images)
    for i, image in enumerate(features):
        for j, ids in enumerate(texts_of(batch)):
            no, yes = plain.matching(model, image, ids)
            torch.testing.assert_close(scores[i, j], yes - no, **TOLERANCE)
            torch.testing.assert_close(similar[i, j], plain.similarity(model, image, ids), **TOLERANCE)


def test_it_scores_and_writes_but_has_no_one_vector_of_an_image():
    assert set(capabilities_of(stirred(small_blip2()))) == {"score", "log_likelihood", "generate_text"}


def test_a_table_of_image_tokens_stands_for_images():
    model, batch = stirred(small_blip2()), text_batch()
    vectors = model.image_vectors(batch.images)
    assert vectors.shape == (3, model.table_width("image"))
    cached = replace(batch, images=None, cached={"image": vectors})
    torch.testing.assert_close(model.predict(cached).hidden, model.predict(batch).hidden)


def test_only_tokens_that_bear_loss_are_targets():
    model, batch = stirred(small_blip2()), text_batch((5, 2, 7))
    mask = torch.zeros(3, 7, dtype=torch.bool)
    mask[0, 3:], mask[2, 0] = (
        True,
        True,
    )  # the end of the first text, padding and all; a first token, which is never one
    found = model.predict(replace(batch, loss_mask=mask))
    assert found.targets.tolist() == batch.tokens[0, 3:5].tolist()
    assert found.record.tolist() == [0, 0]


def test_pages_and_long_texts_are_refused():
    model, batch = stirred(small_blip2()), text_batch((5, 2))
    with pytest.raises(DataError, match="must be given one image a record, before its text; got 0 images for 2"):
        model.predict(replace(batch, images=None))
    with pytest.raises(DataError, match="some inside the text"):
        model.predict(replace(batch, image_position=torch.tensor([0, 1])))
    with pytest.raises(DataError, match="got several of one record"):
        model.predict(replace(batch, image_record=torch.tensor([0, 0])))
    with pytest.raises(DataError, match="at most 12 tokens, the model's context_length; got 13"):
        model.predict(text_batch((13,)))


def test_the_scale_is_held_after_each_step():
    model = stirred(small_blip2(max_logit_scale=50.0))
    with torch.no_grad():
        model.log_logit_scale.fill_(9.0)
    model.after_step()
    assert model.log_logit_scale.exp().item() == pytest.approx(50)
    assert model.decay_free() <= dict(model.named_parameters()).keys()
