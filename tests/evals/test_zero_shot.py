import base64
import json

import numpy as np
import pytest
import torch

from diptych.core.config import from_json, to_json
from diptych.core.errors import EvalError
from diptych.data.decode import decode_image
from diptych.evals import zero_shot
from diptych.evals.zero_shot import ZeroShotConfig
from tests.evals import fakes
from tests.evals.contract import Case
from tests.evals.fake_writer import writer


def _run(model, split, artifacts=False, **settings):
    return ZeroShotConfig(**{"templates": "simple", **settings}).build().run(model, split, artifacts)


@pytest.mark.parametrize("kind", [fakes.Embeds, fakes.Scores])
def test_a_perfect_model_scores_one(kind):
    result = _run(fakes.model(kind, by_label=True), fakes.labelled(40, 8))
    for name in ("acc_at_1", "acc_at_5", "mean_per_class_recall", "acc_at_1_single_prompt", "acc_at_1_bare_name"):
        e = result.metrics[name]
        assert (e.value, e.high, e.n) == (1, 1, 40)
        assert e.above_chance
    assert result.metrics["acc_at_1"].low < 1
    assert result.settings["majority_share"] == 0.125


@pytest.mark.parametrize("kind", [fakes.Embeds, fakes.Scores])
def test_a_random_model_scores_chance(kind):
    result = _run(fakes.model(kind, perfect=False), fakes.labelled(300, 10))
    for name, chance in (("acc_at_1", 0.1), ("acc_at_5", 0.5), ("mean_per_class_recall", 0.1)):
        e = result.metrics[name]
        assert e.chance == chance
        assert e.low <= chance <= e.high
        assert not e.above_chance


def test_both_ways_of_scoring_agree_on_single_prompts():
    embeds = _run(fakes.model(fakes.Embeds, perfect=False), fakes.labelled(50, 10))
    scores = _run(fakes.model(fakes.Scores, perfect=False), fakes.labelled(50, 10))
    for name in ("acc_at_1_single_prompt", "acc_at_1_bare_name"):
        assert embeds.metrics[name] == scores.metrics[name]
    assert (embeds.settings["scored_by"], scores.settings["scored_by"]) == ("embeddings", "score")


@pytest.mark.parametrize("prompts", [1, 5, 8192])
def test_class_vectors_are_unit_means_of_unit_vectors(prompts, monkeypatch):
    monkeypatch.setattr(zero_shot, "PROMPTS", prompts)
    model = fakes.model(perfect=False)
    names, templates = ("kind 1", "kind 2"), ("a {}.", "the {}!", "{}")
    rows = []
    for name in names:
        vectors = [model.embed_text(t.replace("{}", name))[0] for t in templates]
        mean = torch.stack([v / v.norm() for v in vectors]).mean(0)
        rows.append(mean / mean.norm())
    torch.testing.assert_close(zero_shot.class_vectors(model, names, templates), torch.stack(rows))


def test_artifacts_are_whole_and_json():
    split = fakes.labelled(60, 6)
    split.images[5] = b"broken"
    result = _run(fakes.model(perfect=False), split, True, classes=tuple(f"kind_{c}" for c in range(7)), pictures=3)
    assert from_json(to_json(result)).metrics == result.metrics
    found = json.loads(json.dumps(result.artifacts))
    matrix = np.array(found["confusion"]["matrix"])
    assert matrix.shape == (7, 7)
    assert matrix.sum(1).tolist() == [10] * 5 + [9, 0]
    assert found["absent_classes"] == ["kind_6"]
    assert np.trace(matrix) / 59 == pytest.approx(result.metrics["acc_at_1"].value)
    per_class = found["per_class"]
    assert [c["n"] for c in per_class] == [10] * 5 + [9]
    assert np.mean([c["recall"] for c in per_class]) == pytest.approx(result.metrics["mean_per_class_recall"].value)
    assert all(c["low"] <= c["recall"] <= c["high"] for c in per_class)
    assert [p["name"] for p in found["prompts"]] == ["ensemble", "single prompt", "bare name"]
    assert found["ensemble_against"]["bare_name"]["verdict"] in ("better", "worse", "indistinguishable")
    assert len(found["mistakes"]) == 3
    assert found["mistakes"][0]["confidence"] >= found["mistakes"][2]["confidence"]
    assert decode_image(base64.b64decode(found["mistakes"][0]["thumb"])).shape == (3, fakes.SIDE, fakes.SIDE)
    assert sum(b["n"] for b in found["calibration"]) == 59
    assert result.settings["broken_images"]["count"] == 1


def test_the_calibration_error_by_hand():
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55])
    hits = np.array([True, True, True, False, False, False])
    e = zero_shot.calibration_error(confidence, hits)
    assert e.value == pytest.approx((4 * abs(0.75 - 0.95) + 2 * 0.55) / 6)
    assert e.low <= e.value <= e.high
    assert not e.higher_is_better
    rng = np.random.default_rng(0)
    honest = rng.uniform(0.2, 1, 20_000)
    assert zero_shot.calibration_error(honest, rng.random(20_000) < honest, 100).value < 0.02


def test_class_indices_files_and_the_datasets_own_folder(tmp_path):
    (tmp_path / "classes.txt").write_text("\ufeffn01\tkind 0\nn02\tkind 1\n\nn03\tkind 2\n", "utf-8")
    (tmp_path / "templates.txt").write_text("a drawing of {}\n{} icon\n")
    split = fakes.labelled(12, 3)
    split.shards = [tmp_path / "val" / "00000.tar"]
    result = _run(fakes.model(by_label=True), split, label_field="class_index", templates="")
    assert result.metrics["acc_at_1"].value == 1
    assert result.settings["class_names"] == ["kind 0", "kind 1", "kind 2"]
    assert result.settings["template_list"] == ["a drawing of {}", "{} icon"]
    assert result.settings["templates_from"] == "templates.txt"
    assert "acc_at_5" not in result.metrics  # of three classes it says nothing


def test_equal_images_are_one_independent_item():
    split = fakes.labelled(20, 2)
    split.images = [split.images[i % 4] for i in range(20)]
    assert _run(fakes.model(by_label=True), split).metrics["acc_at_1"].n == 4


def test_errors_say_what_to_do():
    model, split = fakes.model(by_label=True), fakes.labelled(6, 3)
    with pytest.raises(EvalError, match=r"every label must be one of the 2 classes.*got 'kind_2' in record 0*2"):
        _run(model, split, classes=("kind_0", "kind_1"))
    with pytest.raises(EvalError, match=r"class index must lie in 0\.\.1; got 2"):
        _run(model, split, classes=("kind_0", "kind_1"), label_field="class_index")
    with pytest.raises(EvalError, match="at least 2 classes; got 1"):
        _run(model, fakes.labelled(6, 1))
    with pytest.raises(EvalError, match=r"class indices only.*classes.txt"):
        _run(model, split, label_field="class_index")
    with pytest.raises(EvalError, match=r"'colour' in its meta; got 6 of 6 without.*there are: class_index, label"):
        _run(model, split, label_field="colour")
    split._meta[1] = {"label": ["a", "b"]}
    with pytest.raises(EvalError, match="a text or a whole number"):
        _run(model, split)


def contract_cases():
    def maker(kind):
        def case(perfect, n):
            n = min(n, 100) if kind == "writes" else n
            split = fakes.labelled(n, 10)
            model = writer(split, perfect) if kind == "writes" else fakes.model(kind, perfect, by_label=perfect)
            return Case(model, split, {"templates": "plain"}, n)

        return case

    return {getattr(kind, "__name__", kind): maker(kind) for kind in (fakes.Embeds, fakes.Scores, "writes")}
