from dataclasses import replace

import pytest
import torch

from diptych.core.errors import ConfigError
from diptych.objectives.bag_of_words import BagOfWordsConfig
from diptych.recipes.find import recipe
from diptych.train.plan import cost
from tests.models.test_word_predictor import small_word_predictor
from tests.models.writers import stirred, text_batch
from tests.objectives.tiny_model import TinyConfig


def test_it_is_the_cross_entropy_with_the_normalised_bag():
    model, batch = stirred(small_word_predictor()), text_batch((5, 4, 7))
    losses = BagOfWordsConfig().build(model)(batch)
    scores = model.score(batch.images, batch.tokens, batch.lengths)
    torch.testing.assert_close(losses.total, -scores.diagonal().mean(), atol=1e-5, rtol=1e-5)
    assert losses.count == 3
    assert 0 <= losses.parts["word_recall"] <= 1


def test_one_versus_all_counts_absent_words_too():
    model, batch = stirred(small_word_predictor(words="sigmoid")), text_batch((5, 4, 7))
    losses = BagOfWordsConfig().build(model)(batch)
    p = model.word_logits(model.image_vectors(batch.images)).sigmoid()
    bags = model.bags(batch.tokens, batch.lengths)
    each = -(torch.where(bags, p, 1 - p).log().sum(1) / bags.sum(1))
    torch.testing.assert_close(losses.total, each.mean(), atol=1e-5, rtol=1e-5)


def test_pieces_add_up_though_a_text_has_no_words():
    objective = BagOfWordsConfig().build(stirred(small_word_predictor()))
    batch = text_batch((5, 2, 7, 3))  # the second is a start and an end
    whole, parts = objective(batch), [objective(batch.slice(i, i + 2)) for i in (0, 2)]
    assert [float(p.count) for p in parts] == [1, 2]
    mean = sum(p.total * p.count for p in parts) / 3
    torch.testing.assert_close(mean, whole.total)
    alone = objective(batch.slice(1, 2))
    assert alone.total == 0
    assert alone.count == 0


def test_what_the_images_say_can_be_learnt_by_heart():
    objective, batch = BagOfWordsConfig().build(stirred(small_word_predictor()).train()), text_batch((5, 4, 7))
    optimizer = torch.optim.Adam(objective.parameters(), lr=3e-2)
    for _ in range(40):
        losses = objective(batch)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    assert losses.parts["word_recall"] == 1


def test_a_table_of_vectors_stands_for_images():
    objective, batch = BagOfWordsConfig().build(stirred(small_word_predictor())), text_batch((5, 4, 7))
    vectors = objective.model.image_vectors(batch.images)
    cached = replace(batch, images=None, cached={"image": vectors})
    torch.testing.assert_close(objective(cached).total, objective(batch).total)


def test_a_model_without_words_is_refused():
    with pytest.raises(ConfigError, match="must be given a model that predicts words"):
        BagOfWordsConfig().build(TinyConfig().build(10))


def test_its_operations_can_be_counted_without_content():
    run = recipe("bag_of_words:tiny")
    assert cost(run, 300).flops_per_sample > 1e6
