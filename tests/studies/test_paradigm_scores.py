"""Ranks of both sides of a matrix of scores, ties against the model."""

import pytest
import torch

from diptych.core.errors import ConfigError, EvalError
from diptych.data.image_reader import ImageReader
from diptych.models.pretrained import Pretrained
from diptych.studies.paradigm_scores import items_of, ranks_of, scores_of
from tests.evals import fakes
from tests.evals.fake_writer import WordTokenizer
from tests.evals.two_captions import right_and_wrong
from tests.models.test_writers_contract import ready


class Broken(fakes.Scores):
    """Has no score for one pair."""

    def score(self, images: torch.Tensor, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        scores = super().score(images, tokens, lengths)
        scores[3, 0] = float("nan")
        return scores


def test_ranks_count_what_scores_as_high() -> None:
    scores = torch.tensor([[3.0, 1.0, 0.0], [5.0, 2.0, 2.0], [0.0, 0.0, 0.0]])
    assert ranks_of(scores) == {"names": [1, 3, 3], "pictures": [2, 1, 3]}
    assert ranks_of(torch.zeros(4, 4)) == {"names": [4] * 4, "pictures": [4] * 4}


class Split:
    name = "test"

    def __init__(self, captions: list[str]) -> None:
        self.said = captions

    def __len__(self) -> int:
        return len(self.said)

    def captions(self, place: int) -> tuple[str, ...]:
        return (self.said[place],)


def test_no_name_comes_twice() -> None:
    split = Split(["a", "b", "a", "c", "d", "d"])
    places, names = items_of(split, 4)
    assert sorted(names) == ["a", "b", "c", "d"]
    assert [split.said[p] for p in places] == names
    with pytest.raises(ConfigError, match="got 5, and there are 4"):
        items_of(split, 5)


def test_pictures_come_from_all_over_the_split() -> None:
    places, _ = items_of(Split([f"thing {i}" for i in range(400)]), 40)
    assert places == sorted(places)
    assert min(sum(100 * q <= p < 100 * (q + 1) for p in places) for q in range(4)) >= 4


def test_scores_that_are_no_numbers_earn_nothing() -> None:
    split, model = fakes.pairs(4), fakes.model(Broken)
    with pytest.raises(EvalError, match=r"scores must be finite; got 1 of 16 .* own score"):
        scores_of(model, split, range(4), [split.captions(i)[0] for i in range(4)])
    split.images[2] = b"no picture"
    with pytest.raises(ConfigError, match=r"must be readable; 1 are not"):
        scores_of(fakes.model(), split, range(4), [split.captions(i)[0] for i in range(4)])


@pytest.mark.parametrize("name", ["prefix_lm/git", "coca/cascade"])
def test_a_writer_is_judged_by_likelihood_less_that_over_other_pictures(name: str) -> None:
    model, split, names = (
        Pretrained(ready(name), WordTokenizer()),
        right_and_wrong(6, 2),
        [f"thing {i}" for i in range(4)],
    )
    found = scores_of(model, split, range(4), names, (split, [4, 5]))
    assert set(found) == ({"cosine"} if name.startswith("coca") else set()) | {"likelihood", "less_text"}
    tokens, lengths = model.tokenizer.batch(names)
    images = next(iter(ImageReader(split, model.model.config.image_format, 8).batches(range(6)))).images
    log_p = torch.stack([model.model.log_likelihood(i[None], tokens, lengths)[0] for i in images]).double()
    torch.testing.assert_close(found["likelihood"].double(), log_p[:4], rtol=1e-5, atol=1e-5)
    prior = log_p[4:].exp().mean(0).log()
    torch.testing.assert_close(found["less_text"].double(), log_p[:4] - prior, rtol=1e-5, atol=1e-5)
