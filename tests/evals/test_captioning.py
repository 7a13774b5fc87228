import json

import numpy as np
import pytest

from diptych.core.config import from_json, to_json
from diptych.core.errors import EvalError
from diptych.data.corpora.scenes import ScenesConfig
from diptych.evals import clip_score
from diptych.evals.captioning import CaptioningConfig
from tests.evals import fakes
from tests.evals.contract import Case
from tests.evals.fake_writer import writer


def _run(model, split, artifacts=False, **settings):
    return CaptioningConfig(**settings).build().run(model, split, artifacts)


@pytest.fixture(scope="module")
def scenes():
    """Forty scenes, their pictures exchanged for colours that the fake writer can tell apart."""
    records = list(ScenesConfig(size=40, resolution=16).build().records())
    said = [tuple(c.lower() for c in r.segments[1].texts) for r in records]
    return fakes.FakeSplit([fakes.picture(i) for i in range(40)], said, [r.meta for r in records])


def test_a_perfect_model_reaches_the_best_there_is():
    split = fakes.told(40)
    result = _run(writer(split), split)
    assert result.metrics["cider"].value > 4  # of two references it can equal one only
    assert result.metrics["exact_match"].value == 1
    assert result.metrics["bleu_4"].value == 1
    for name in ("cider", "bleu_4", "bleu_1", "rouge_l", "exact_match", "cider_over_blind"):
        e = result.metrics[name]
        assert e.above_chance, name
        assert e.low < e.value, name
    assert result.metrics["rouge_l"].value == result.metrics["bleu_1"].value == 1
    assert result.settings["distinct_captions"] == 40
    assert result.settings["words_a_caption"] == 5


def test_a_random_model_scores_what_its_captions_score_of_wrong_images():
    split = fakes.told(200)
    result = _run(writer(split, perfect=False), split)
    for name in ("cider", "bleu_4", "rouge_l", "exact_match"):
        e = result.metrics[name]
        assert e.low <= e.chance <= e.high, name


def test_a_model_that_always_says_the_same_is_not_above_chance():
    split = fakes.told(60)
    result = _run(writer(split, blind=True), split)
    assert result.metrics["cider"].value == pytest.approx(result.metrics["cider"].chance, rel=0.2)
    assert result.settings["distinct_captions"] == 1
    over = result.metrics["cider_over_blind"]
    assert over.value == 0
    assert over.low <= 0 <= over.high


def test_every_fact_of_a_scene_is_checked(scenes):
    result = _run(writer(scenes), scenes, True)
    for fact in ("object", "colour", "size", "count", "relation", "background"):
        assert result.metrics[f"{fact}_accuracy"].value == 1, fact
        assert result.metrics[f"{fact}_accuracy"].chance < 0.9, fact
    assert result.metrics["named_recall"].value > 0.9
    assert result.metrics["all_facts_accuracy"].value > 0.8
    assert result.metrics["all_facts_gain_over_blind"].low > 0.5
    assert result.metrics["parsed_share"].value == 1
    assert result.artifacts["facts_against_blind"]["all_facts_accuracy"]["verdict"] == "better"
    row = {r["fact"]: r for r in result.artifacts["facts"]}["colour"]
    assert row["claimed"] == row["true"] > 40
    assert row["blind"] == 0, "of a blank image it says nothing that can be read"


def test_a_model_that_takes_one_scene_for_another_is_found_out(scenes):
    result = _run(writer(scenes, perfect=False), scenes)
    assert not result.metrics["colour_accuracy"].above_chance
    assert result.metrics["all_facts_accuracy"].value < 0.2


def test_artifacts_are_whole_and_json():
    split = fakes.told(30)
    split.images[4] = b"broken"
    split._captions[5] = ()
    result = _run(writer(split, perfect=False), split, True, pictures=5)
    assert from_json(to_json(result)).metrics == result.metrics
    found = json.loads(json.dumps(result.artifacts))
    assert (result.settings["images"], result.settings["images_without_caption"]) == (28, 1)
    assert result.settings["broken_images"]["count"] == 1
    for name in ("some", "best", "worst"):
        rows = found[f"captions_{name}"]
        assert len(rows) == 5
        assert all(r["thumb"] and len(r["references"]) == 2 for r in rows)
    assert found["captions_best"][0]["cider"] >= found["captions_worst"][0]["cider"]
    assert len(result.items["images"].values["cider"]) == 28
    assert found["against_blind"]["cider"]["verdict"] in ("better", "worse", "indistinguishable")


def test_another_model_judges_the_captions(monkeypatch):
    split = fakes.pairs(40)
    judge = fakes.model()
    judge.fingerprint = "of the judge"
    monkeypatch.setattr(clip_score, "open_model", lambda words, device: judge)
    right, wrong = (_run(writer(split, perfect), split, True, scorer="judge") for perfect in (True, False))
    assert right.settings["scorer_fingerprint"] == "of the judge"
    for name in ("clip_score", "ref_clip_score"):
        assert right.metrics[name].above_chance
        assert not wrong.metrics[name].above_chance
        assert np.mean(wrong.items["images"].values[name]) == pytest.approx(wrong.metrics[name].value)
    assert right.metrics["clip_score"].value == pytest.approx(2.5)
    other = _run(writer(split), split, scorer="judge", clip_convention="torchmetrics")
    assert other.metrics["clip_score"].value == pytest.approx(100)
    judge.fingerprint = "f" * 8
    with pytest.raises(EvalError, match="scorer must be another model than the one under test"):
        _run(writer(split), split, scorer="judge")
    assert "clip_score" not in _run(writer(split), split).metrics


def test_the_prompt_is_part_of_the_caption():
    split = fakes.told(10)
    result = _run(writer(split), split, True, prompt="a kind_0 thing")
    assert all(c["caption"].startswith("a kind_0 thing") for c in result.artifacts["captions_some"])


def test_errors_say_what_to_do():
    with pytest.raises(EvalError, match="captioning must be given a model with generate_text; got Embeds"):
        _run(fakes.model(), fakes.told(4))
    asked = fakes.asked(4, 2)
    with pytest.raises(EvalError, match=r"2 different readable images with captions; got 0.*use vqa"):
        _run(writer(asked), asked)


def contract_cases():
    def case(perfect, n):
        n = min(n, 100)
        split = fakes.told(n, captions=1)
        return Case(writer(split, perfect), split, {}, n)

    return {"writes": case}
