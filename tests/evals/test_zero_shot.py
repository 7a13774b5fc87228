import base64
import json

import numpy as np
import pytest
import torch

from diptych.core.config import from_json, to_json
from diptych.core.errors import EvalError
from diptych.data.decode import decode_image
from diptych.evals.zero_shot import ZeroShotConfig
from tests import torchvision_on_cpu
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


def test_what_does_not_suit_is_said():
    model, split = fakes.model(by_label=True), fakes.labelled(6, 3)
    assert ZeroShotConfig().unsuited(model, split) == ""
    assert "no label in their meta" in ZeroShotConfig().unsuited(model, fakes.pairs(6))
    split._meta[0] = {"label": ["a", "b"]}
    assert "multi_label is for them" in ZeroShotConfig().unsuited(model, split)


def test_it_is_clip_benchmarks_to_the_last_digit(monkeypatch):
    """The same vectors: acc@1, acc@5, mean per-class recall. Of theirs, accuracy() stops at numpy 2.4, which makes no
    float of an array of one number: scikit-learn's stands in."""
    from sklearn.metrics import top_k_accuracy_score

    torchvision_on_cpu.install()
    theirs = pytest.importorskip("clip_benchmark.metrics.zeroshot_classification")
    monkeypatch.setattr(
        theirs, "accuracy", lambda scores, truth, topk: [top_k_accuracy_score(truth, scores, k=k) for k in topk]
    )
    model, split = fakes.model(perfect=False), fakes.labelled(90, 7)
    split._meta[5] = split._meta[6] = {"label": "kind_1", "class_index": 1}
    result = _run(model, split, templates=("a {}.", "the {}!"))
    names, truth = [f"kind {c}" for c in range(7)], torch.tensor([m["class_index"] for m in split._meta])

    class Clip:
        def encode_image(self, images):
            return model.model.embed_image(images)

        def encode_text(self, texts):
            return model.embed_text(texts)

    class Texts(list):
        def to(self, device):
            return self

    class Batches(list):
        dataset = type("Named", (), {"classes": names})

    pixels = torch.stack([model.pixels(split.image_bytes(i)) for i in range(90)])
    found = theirs.evaluate(Clip(), Batches([(pixels, truth)]), Texts, names, ["a {c}.", "the {c}!"], "cpu", amp=False)
    for ours, name in (("acc_at_1", "acc1"), ("acc_at_5", "acc5"), ("mean_per_class_recall", "mean_per_class_recall")):
        assert result.metrics[ours].value == pytest.approx(found[name], abs=1e-12)


def contract_cases():
    def maker(kind):
        def case(perfect, n):
            n = min(n, 100) if kind == "writes" else n
            split = fakes.labelled(n, 10)
            model = writer(split, perfect) if kind == "writes" else fakes.model(kind, perfect, by_label=perfect)
            return Case(model, split, {"templates": "plain"}, n)

        return case

    return {getattr(kind, "__name__", kind): maker(kind) for kind in (fakes.Embeds, fakes.Scores, "writes")}
