import numpy as np
import pytest

from diptych.core.errors import EvalError
from diptych.evals.item_hits import HitConfig, asked_of, item_hits
from diptych.evals.retrieval import RetrievalConfig
from diptych.evals.zero_shot import ZeroShotConfig
from tests.evals import fakes
from tests.evals.fake_writer import writer


class _Config(HitConfig):
    pass


KINDS = [fakes.Embeds, fakes.Scores]


def _hits(model, split, **settings):
    return item_hits(model, split, _Config(**settings), "a test")


@pytest.mark.parametrize("kind", KINDS)
def test_classes_are_those_of_zero_shot(kind):
    split, model = fakes.labelled(60, 6), fakes.model(kind, perfect=False)
    hits = _hits(model, split, templates="plain")
    e = ZeroShotConfig(templates="plain").build().run(model, split, False).metrics["acc_at_1"]
    assert (hits.asked, hits.right.mean(), set(hits.chance)) == ("labels", e.value, {e.chance})
    assert len(hits.names) == 6


@pytest.mark.parametrize("kind", KINDS)
def test_captions_are_those_of_retrieval(kind):
    split, model = fakes.pairs(40), fakes.model(kind, perfect=False)
    split._captions[3] = split._captions[4]  # two images may have one caption
    hits = _hits(model, split)
    e = RetrievalConfig().build().run(model, split, False).metrics["i2t_recall_at_1"]
    assert (hits.asked, hits.right.mean()) == ("captions", e.value)
    assert hits.chance.mean() == pytest.approx(1 / 39)  # of the different captions; retrieval's gallery has all
    known = _hits(fakes.model(kind), split).right
    assert np.flatnonzero(~known).tolist() == [3]  # it knows better what image 3 is


def test_a_writer_is_asked_too():
    split = fakes.labelled(30, 5)
    assert _hits(writer(split), split, templates="plain").right.all()
    assert _hits(writer(split), split, choices="captions").right.all()


def test_a_model_that_only_scores_can_be_asked_less():
    split = fakes.pairs(30)
    assert len(_hits(fakes.model(fakes.Scores), split, most_scored=8).right) == 8
    assert len(_hits(fakes.model(fakes.Scores), split, most_scored=8, max_items=5).right) == 5
    assert len(_hits(fakes.model(fakes.Embeds), split, most_scored=8).right) == 30


def test_what_can_be_asked():
    labelled, pairs = fakes.labelled(4, 2), fakes.pairs(4)
    assert asked_of(labelled, _Config()) == "labels"
    assert asked_of(labelled, _Config(choices="captions")) == "captions"
    assert asked_of(pairs, _Config()) == "captions"
    assert asked_of(pairs, _Config(label_field="kind")) == "labels"
    bare = fakes.FakeSplit(pairs.images, [()] * 4)
    assert asked_of(bare, _Config()) == "none"
    hits = _hits(fakes.model(), bare)
    assert (hits.asked, hits.right.tolist(), len(hits.gallery.places)) == ("none", [False] * 4, 4)
    with pytest.raises(EvalError, match="at least one readable image"):
        _hits(fakes.model(), bare, choices="captions")


def test_equal_images_are_one_and_keep_their_order():
    split = fakes.pairs(10)
    split.images[7] = split.images[2]
    hits = _hits(fakes.model(), split)
    assert hits.gallery.places == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    np.testing.assert_array_equal(hits.right, True)
