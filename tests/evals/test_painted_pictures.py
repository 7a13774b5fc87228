import pytest

from diptych.core.errors import DiptychError, EvalError
from diptych.core.seeds import permute
from diptych.data.decode import decode_image
from diptych.evals import painted_pictures
from diptych.evals.painted_pictures import PaintedPicturesConfig
from tests.evals import fakes
from tests.evals.contract import Case
from tests.evals.fake_painter import painter
from tests.evals.labelled_data import TRAIN_FROM, judged_split

JUDGE = "a judge of tests"


def _judge():
    judge = fakes.model()
    judge.fingerprint = "another"
    painted_pictures.OPENED[JUDGE, "cpu"] = judge


def _paints(split, which):
    """The picture number which(i) for the caption of record i."""
    return painter({split.captions(i)[0]: decode_image(fakes.picture(which(i))) for i in range(len(split))})


def contract_cases():
    def make(perfect, n):
        _judge()
        split = fakes.pairs(n)
        model = _paints(split, (lambda i: i) if perfect else (lambda i: permute(i, n, "wrong")))
        return Case(model, split, {"judge": JUDGE, "bootstrap": 100}, n)

    return {"painter": make}


def _run(model, split, artifacts=False, **settings):
    _judge()
    config = PaintedPicturesConfig(**{"judge": JUDGE, "bootstrap": 100, **settings})
    return config.build().run(model, split, artifacts)


def test_the_right_text_is_found_for_what_was_painted_and_not_for_anothers():
    split = fakes.pairs(40)
    result = _run(_paints(split, lambda i: i), split, True)
    m = result.metrics
    assert m["recall_at_1"].value == m["real_recall_at_1"].value == m["recall_at_10"].value == 1
    assert m["other_recall_at_1"].value == 0
    assert m["median_rank"].value == 1
    assert m["cosine"].value == pytest.approx(1)
    assert m["cosine"].chance == m["other_cosine"].value
    assert m["cosine"].above_chance
    assert m["recall_at_1"].chance == pytest.approx(1 / 40)
    assert "near_copy_share" not in m, "the split belongs to no data with training pictures"
    shown = result.figures[1].pictures
    assert len(shown) == 24
    assert shown[0].detail == "rank 1 of 40"


def test_who_copies_from_training_is_seen():
    split = judged_split(30)
    train = _run(_paints(split, lambda i: TRAIN_FROM + i), split, True)
    fresh = _run(_paints(split, lambda i: 500 + i), split, True)
    assert train.settings["training_images"] == 200
    assert train.metrics["nearest_training_cosine"].value == pytest.approx(1)
    assert fresh.metrics["nearest_training_cosine"].value < 0.9
    assert train.metrics["near_copy_share"].value > fresh.metrics["near_copy_share"].value
    assert train.metrics["real_near_copy_share"] == fresh.metrics["real_near_copy_share"]
    pairs = train.figures[2].pictures
    assert len(pairs) == 12
    assert "near copy, cosine 1.000" in pairs[1].detail
    assert train.metrics["recall_at_1"].value < 0.5, "a copy of something else shows nothing of the text"


def test_pictures_painted_for_one_text_are_one_item():
    split = fakes.pairs(40)
    split._captions[20:] = split._captions[:20]
    result = _run(_paints(split, lambda i: i), split, True)
    assert {e.n for e in result.metrics.values()} == {20}
    assert len(set(result.items["images"].clusters.tolist())) == 20


def test_a_split_of_training_pictures_that_is_named_must_be_there():
    split = judged_split(30)
    with pytest.raises(DiptychError, match="learn"):
        _run(_paints(split, lambda i: i), split, train_split="learn")


def test_a_judge_must_be_named_and_another():
    split = fakes.pairs(4)
    model = _paints(split, lambda i: i)
    with pytest.raises(EvalError, match=r"must be told who judges; got no judge.*judge=RUN"):
        _run(model, split, judge="")
    assert "no judge is named" in PaintedPicturesConfig().unsuited(model, split)
    assert PaintedPicturesConfig(judge=JUDGE).unsuited(model, split) == ""
    assert "no generate_image" in PaintedPicturesConfig(judge=JUDGE).unsuited(fakes.model(), split)
