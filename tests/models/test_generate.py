import itertools

import pytest
import torch

from diptych.core.batch import Batch
from diptych.core.errors import ConfigError
from diptych.models.generate import Generation, nucleus
from tests.models.writers import greedy_again, small_prefix_lm, stirred, text_batch

START, END = 2, 1


@torch.no_grad()
def log_p(model, image, said):
    batch = Batch(
        images=image[None],
        image_record=torch.tensor([0]),
        tokens=torch.tensor([[START, *said]]),
        lengths=torch.tensor([len(said) + 1]),
    )
    found = model.predict(batch)
    return float(model.logits(found.hidden).log_softmax(-1).gather(1, found.targets[:, None]).sum())


@pytest.fixture(scope="module")
def model():
    return stirred(small_prefix_lm())


def test_greedy_is_what_the_whole_row_says_token_by_token(model):
    images = text_batch().images
    prompts = [[START], [START, 5, 6], [START, 9]]
    found = model.generate_text(images, prompts, Generation(start_id=START, end_id=END, max_tokens=6))
    for image, prompt, said in zip(images, prompts, found, strict=True):
        assert said == greedy_again(model, image, prompt, END, 6)


@pytest.mark.slow
def test_wide_beams_find_the_likeliest_text(model):
    how = Generation(start_id=START, end_id=END, max_tokens=2, beams=30, length_penalty=0)
    images = text_batch().images[:1]
    found = model.generate_text(images, None, how)
    every = [[], *([a] for a in range(30) if a != END), *map(list, itertools.product(range(30), repeat=2))]
    every = [t for t in every if END not in t]
    for image, said in zip(images, found, strict=True):
        scores = {tuple(t): log_p(model, image, t if len(t) == 2 else [*t, END]) for t in every}
        assert tuple(said) == max(scores, key=scores.get)


def test_draws_are_repeated_by_their_seed_and_stay_in_the_nucleus(model):
    images = text_batch().images
    how = Generation(start_id=START, end_id=END, max_tokens=5, top_p=0.9, seed=3)
    assert model.generate_text(images, None, how) == model.generate_text(images, None, how)
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    p = nucleus(logits, 0.7)
    assert (p > 0).tolist() == [[True, True, False, False]]
    torch.testing.assert_close(p.sum(-1), torch.ones(1))
    greedy = how.replace(top_p=1e-6)
    plain = Generation(start_id=START, end_id=END, max_tokens=5)
    assert model.generate_text(images, None, greedy) == model.generate_text(images, None, plain)


def test_beams_and_draws_exclude_each_other():
    with pytest.raises(ConfigError, match="beams must be 1"):
        Generation(beams=4, top_p=0.9)
