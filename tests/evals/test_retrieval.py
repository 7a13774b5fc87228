import base64
import json

import pytest

from diptych.core.config import from_json, to_json
from diptych.core.errors import ConfigError, EvalError
from diptych.data.decode import decode_image
from diptych.evals.retrieval import RetrievalConfig
from tests.evals import fakes
from tests.evals.contract import Case
from tests.evals.fake_writer import writer


class _CollapsedScores(fakes.Scores):
    _vectors = fakes.Collapsed._vectors


def _run(model, split, artifacts=False, **settings):
    return RetrievalConfig(**settings).build().run(model, split, artifacts)


@pytest.mark.parametrize("kind", [fakes.Embeds, fakes.Scores])
@pytest.mark.parametrize("captions", ["first", "all"])
def test_a_perfect_model_scores_one(kind, captions):
    found = _run(fakes.model(kind), fakes.pairs(40, 3), captions=captions, bootstrap=100).metrics
    for way in ("i2t", "t2i"):
        for metric in ("recall_at_1", "recall_at_5", "recall_at_10", "mrr", "median_rank"):
            e = found[f"{way}_{metric}"]
            assert (e.value, e.n) == (1, 40)
            assert e.above_chance
    assert found["t2i_recall_at_1"].low < 1  # 40 images cannot prove perfection


@pytest.mark.parametrize("kind", [fakes.Embeds, fakes.Scores])
def test_a_random_model_scores_chance(kind):
    result = _run(fakes.model(kind, perfect=False), fakes.pairs(150, 3), captions="all", k=(5, 30), bootstrap=300)
    for name, e in result.metrics.items():
        assert e.low <= e.chance <= e.high, name
    assert result.metrics["t2i_recall_at_5"].chance == pytest.approx(5 / 150)
    assert result.settings["captions_used"] == 450


def test_both_ways_of_scoring_agree():
    embeds = _run(fakes.model(fakes.Embeds, perfect=False), fakes.pairs(50, 2), True, captions="all", pictures=2)
    scores = _run(fakes.model(fakes.Scores, perfect=False), fakes.pairs(50, 2), True, captions="all", pictures=2)
    assert embeds.metrics == scores.metrics
    assert embeds.items == scores.items
    assert [x["query"] for x in embeds.artifacts["t2i_worst"]] == [x["query"] for x in scores.artifacts["t2i_worst"]]


def test_a_collapsed_model_is_not_flattered():
    found = _run(fakes.model(fakes.Collapsed), fakes.pairs(31)).metrics
    assert found["t2i_recall_at_1"].value == 0
    assert found["t2i_median_rank"].value == 16


@pytest.mark.parametrize("kind", [fakes.Collapsed, _CollapsedScores])
def test_ties_count_as_named(kind):
    found = {t: _run(fakes.model(kind), fakes.pairs(31), ties=t).metrics for t in ("optimistic", "half", "pessimistic")}
    assert {t: m["i2t_median_rank"].value for t, m in found.items()} == {"optimistic": 1, "half": 16, "pessimistic": 31}
    assert {t: m["t2i_recall_at_1"].value for t, m in found.items()} == {"optimistic": 1, "half": 0, "pessimistic": 0}


def test_equal_captions_and_equal_images_are_right():
    split = fakes.pairs(20)
    split.images[7] = split.images[6]  # the same picture with another caption
    split._captions[6], split._captions[7] = ("thing 6 left",), ("thing 6 right",)
    split.images[9], split._captions[9] = fakes.picture(8, 1), ("thing 8 view 0",)  # another picture, the same words
    result = _run(fakes.model(), split)
    assert result.metrics["t2i_recall_at_1"].value == 1
    assert result.metrics["i2t_recall_at_1"].value == 1
    assert result.metrics["i2t_recall_at_1"].n == 19  # two equal pictures are one independent item
    assert (result.settings["distinct_images"], result.settings["distinct_captions"]) == (19, 19)


def test_repeated_captions_are_one_query():
    split = fakes.FakeSplit([fakes.picture(i) for i in range(60)], [(f"kind {i % 4}",) for i in range(60)])
    found = _run(fakes.model(perfect=False), split).metrics
    assert found["t2i_recall_at_1"].n == 4  # four queries cannot tell a model from chance
    assert found["t2i_recall_at_1"].high - found["t2i_recall_at_1"].low > 0.4
    assert found["t2i_recall_at_1"].chance == pytest.approx(0.25)
    assert found["i2t_recall_at_1"].n == 60


def test_broken_images_are_counted_named_and_left_out():
    split = fakes.pairs(12)
    split.images[4] = b"not an image"
    split._captions[5] = ()
    result = _run(fakes.model(), split)
    assert result.settings["broken_images"]["count"] == 1
    assert split.uid(4) in result.settings["broken_images"]["first"]
    assert result.settings["images_without_caption"] == 1
    assert result.metrics["t2i_recall_at_1"].n == 10


def test_artifacts_are_whole_and_json():
    split = fakes.pairs(30, 2)
    result = _run(fakes.model(perfect=False), split, True, captions="all", pictures=4, similarity=10, max_items=25)
    again = from_json(to_json(result))
    assert again.metrics == result.metrics
    found = json.loads(json.dumps(result.artifacts))
    worst, best = found["t2i_worst"], found["t2i_best"]
    assert len(worst) == len(best) == 4
    assert worst[0]["rank"] >= worst[3]["rank"] > best[0]["rank"]
    assert len({x["target"]["uid"] for x in worst}) == 4  # four different images
    top = worst[0]["hits"]
    assert len(top) == 5
    assert [t["score"] for t in top] == sorted((t["score"] for t in top), reverse=True)
    assert not top[0]["correct"]
    assert best[0]["hits"][0]["correct"] == (best[0]["rank"] == 1)
    assert decode_image(base64.b64decode(top[0]["thumb"])).shape == (3, fakes.SIDE, fakes.SIDE)
    assert len(found["i2t_best"][0]["query"]["captions"]) == 2
    assert len(found["similarity"]["matrix"]) == len(found["similarity"]["matrix"][0]) == 10
    assert sum(found["rank_histogram"]["t2i"]["counts"]) == 50
    assert sum(found["rank_histogram"]["i2t"]["counts"]) == 25
    assert len(result.items["captions"].keys) == 50
    assert result.items["captions"].keys[:2] == tuple(f"{result.items['images'].keys[0]}#{n}" for n in (0, 1))


def test_errors_say_what_to_do():
    with pytest.raises(EvalError, match="embeddings must be finite; got 1 of 9"):
        _run(fakes.model(fakes.NotFinite), fakes.pairs(9))
    with pytest.raises(EvalError, match="at least 2 images"):
        _run(fakes.model(), fakes.pairs(1))
    with pytest.raises(EvalError, match="retrieval must be given a model with score; got Mute"):
        _run(fakes.model(fakes.Mute), fakes.pairs(4))
    with pytest.raises(EvalError, match="at least one readable image; got 2 to read and 2 broken"):
        _run(fakes.model(), fakes.FakeSplit([b"", b"x"], [("1",), ("2",)]))


def test_images_without_captions_are_told_from_broken_ones():
    bare = fakes.FakeSplit(fakes.pairs(4).images, [()] * 4)
    with pytest.raises(EvalError, match=r"images with captions; got 0 of 4 in val.*pack with captions"):
        _run(fakes.model(), bare)
    with pytest.raises(ConfigError, match=r"k.0 must be greater than or equal to 1"):
        RetrievalConfig(k=(0,))
    with pytest.raises(ConfigError, match="max_items"):
        RetrievalConfig(max_items=-1)


def contract_cases():
    def maker(kind):
        def case(perfect, n):
            n = min(n, 100) if kind == "writes" else n
            split = fakes.pairs(n)
            return Case(writer(split, perfect) if kind == "writes" else fakes.model(kind, perfect), split, {}, n)

        return case

    return {getattr(kind, "__name__", kind): maker(kind) for kind in (fakes.Embeds, fakes.Scores, "writes")}
