import numpy as np
import pytest
import torch

from diptych.core.errors import EvalError
from diptych.core.image_format import ImageFormat
from diptych.data.image_reader import ImageReader
from diptych.evals import candidates
from diptych.evals.candidates import (
    CandidateScores,
    distractors_of,
    hits,
    margins,
    padded,
    read_items,
    score_items,
)
from diptych.evals.scoring import ScoredItems, Scoring
from diptych.models.pretrained import Pretrained
from tests.evals import fakes
from tests.evals.fake_writer import WordTokenizer, writer
from tests.evals.two_captions import right_and_wrong
from tests.models.test_writers_contract import NAMES, ready


def _reader(split):
    return ImageReader(split, ImageFormat(resolution=fakes.SIDE), 8)


@pytest.mark.parametrize(
    "scoring",
    [
        Scoring("log_likelihood"),
        Scoring("log_likelihood", prior_removed=True),
        Scoring("log_likelihood", per_token=True),
    ],
)
def test_scores_of_an_image_s_own_texts_are_those_of_the_whole_matrix(scoring):
    split = right_and_wrong(20, 2)
    model = writer(split, perfect=False)
    texts = [f"thing {i}" for i in range(20)]
    own = [[i, (i + 3) % 20, 5] if i % 2 else [(i + 1) % 20, i] for i in range(20)]
    whole = ScoredItems(model, _reader(split), range(20), texts, scoring).rows(0, 20)
    scorer = CandidateScores(model, _reader(split), range(20), texts, scoring)
    for row, mine, scores in zip(whole, own, scorer.of_each(own), strict=True):
        np.testing.assert_allclose(scores, row[mine], rtol=1e-5)
    assert scorer.of_blank().shape == scorer.of_none().shape == (20,)
    np.testing.assert_allclose(
        scorer.of_none(), CandidateScores(model, _reader(split), [], texts, Scoring("log_likelihood")).of_blank()
    )


@pytest.mark.parametrize("name", [n for n in NAMES if n.split("/")[1] not in ("rope", "hf")])
def test_of_every_kind_of_writer_too(name, monkeypatch):
    monkeypatch.setattr(candidates, "LOGITS", 1000)  # in many parts
    model = Pretrained(ready(name), WordTokenizer())
    split = right_and_wrong(6, 2)
    texts = ["a thing 1", "thing 2", "a small red thing that is long 3", "thing", "4", "thing 5 and 6"]
    own = [[i, (i + 1) % 6, 2] for i in range(6)]
    scoring, reader = Scoring("log_likelihood"), ImageReader(split, model.model.config.image_format, 4)
    whole = ScoredItems(model, reader, range(6), texts, scoring).rows(0, 6)
    for row, mine, scores in zip(
        whole, own, CandidateScores(model, reader, range(6), texts, scoring).of_each(own), strict=True
    ):
        torch.testing.assert_close(scores, row[mine], atol=1e-4, rtol=1e-5)  # sums of 20 logs, batched otherwise


def test_only_what_is_asked_for_is_scored():
    split = right_and_wrong(16, 1)
    for i, meta in enumerate(split._meta):
        meta["set"] = i // 2
        if i % 2:
            split._captions[i], meta["distractors"] = (split._meta[i - 1]["distractors"][0],), [f"thing {i - 1}"]
    model, calls = fakes.model(fakes.Scores), []
    plain = model.model.score
    model.model.score = lambda images, tokens, lengths: (
        calls.append((len(images), len(tokens))) or plain(images, tokens, lengths)
    )
    items, _ = read_items(split, 0)
    score_items(model, _reader(split), items, Scoring("score"), "test")
    assert calls[:8] == [(2, 2)] * 8  # two images that share two captions, at once
    assert calls[8:] == [(1, 16)]  # and the blank image


def test_embeddings_and_pairs_agree():
    split = right_and_wrong(12, 3)
    items, without = read_items(split, 0)
    assert without == 0
    one = score_items(fakes.model(perfect=False), _reader(split), items, Scoring("embeddings"), "test")
    other = score_items(fakes.model(fakes.Scores, perfect=False), _reader(split), items, Scoring("score"), "test")
    np.testing.assert_allclose(one.image, other.image, atol=1e-6)
    np.testing.assert_allclose(one.blank, other.blank, atol=1e-6)
    assert one.prior is None
    assert one.clusters.tolist() == list(range(12))


def test_what_a_record_says_of_its_distractors():
    assert distractors_of({}) == {}
    assert distractors_of({"distractors": []}) == {}
    assert distractors_of({"distractors": ["a"], "test": "swap"}) == {"swap": ("a",)}
    assert distractors_of({"distractors": ["a"]}) == {"test": ("a",)}
    assert distractors_of({"distractors": {"swap": ["a", "b"], "add": []}}) == {"swap": ("a", "b")}
    assert distractors_of({"distractors": "a"}) == distractors_of({"distractors": [1]}) == {}


def test_some_items_are_always_the_same_and_spread():
    split = right_and_wrong(100)
    some, _ = read_items(split, 10)
    assert some == read_items(split, 10)[0]
    assert len(some) == 10
    assert max(i.place for i in some) > 50


def test_hits_by_hand():
    scores = np.array([[2, 1, -np.inf], [1, 1, 0], [1, 1, 1], [0, 1, -np.inf], [-5, -5 - 1e-9, -6]])
    assert hits(scores, "share").tolist() == pytest.approx([1, 1 / 2, 1 / 3, 0, 1 / 2])
    assert hits(scores, "wrong").tolist() == [1, 0, 0, 0, 0]
    assert hits(scores, "right").tolist() == [1, 1, 1, 0, 1]
    assert margins(scores)[:4].tolist() == [1, 0, 0, -1]
    with pytest.raises(EvalError, match="ties must be one of share, wrong, right; got 'half'"):
        hits(scores, "half")


def test_broken_scores_are_refused():
    assert padded([[1.0], [1.0, 2.0]]).tolist() == [[1, -np.inf], [1, 2]]
    with pytest.raises(EvalError, match="scores must be finite; got 1 of 2"):
        padded([[1.0, float("nan")]])
