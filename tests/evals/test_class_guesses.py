import numpy as np
import pytest
import torch

from diptych.evals import class_guesses
from diptych.evals.class_guesses import class_scores, class_vectors, guess, probability_scale
from diptych.evals.scoring import EmbeddedItems, Scoring
from tests.evals import fakes


@pytest.mark.parametrize("prompts", [1, 5, 8192])
def test_class_vectors_are_unit_means_of_unit_vectors(prompts, monkeypatch):
    monkeypatch.setattr(class_guesses, "PROMPTS", prompts)
    model = fakes.model(perfect=False)
    names, templates = ("kind 1", "kind 2"), ("a {}.", "the {}!", "{}")
    rows = []
    for name in names:
        vectors = [model.embed_text(t.replace("{}", name))[0] for t in templates]
        mean = torch.stack([v / v.norm() for v in vectors]).mean(0)
        rows.append(mean / mean.norm())
    torch.testing.assert_close(class_vectors(model, names, templates), torch.stack(rows))


def test_guesses_are_the_best_scores_some_images_at_a_time():
    rng = torch.Generator().manual_seed(0)
    images = torch.nn.functional.normalize(torch.randn(50, 8, generator=rng), dim=1)
    words = torch.nn.functional.normalize(torch.randn(7, 8, generator=rng), dim=1)
    truth = np.arange(50) % 7
    scores = images @ words.T
    found = guess(EmbeddedItems(images, words), tuple("abcdefg"), truth, 10.0)
    assert found.predicted.tolist() == scores.argmax(1).tolist()
    rank = (scores > scores.gather(1, torch.from_numpy(truth)[:, None])).sum(1)
    assert found.in_top_5.tolist() == (rank < 5).tolist()
    np.testing.assert_allclose(found.confidence, (10 * scores.double()).softmax(1).amax(1))
    assert torch.equal(torch.cat([s for _, s in class_scores(EmbeddedItems(images, words), 7, 50)]), scores)


def test_the_scale_is_the_learned_one():
    model = fakes.model()
    assert probability_scale(model, Scoring("embeddings")) == pytest.approx(np.exp(3))
    assert probability_scale(model, Scoring("log_likelihood")) == 1
    assert probability_scale(model, Scoring("log_likelihood", per_token=True)) is None
