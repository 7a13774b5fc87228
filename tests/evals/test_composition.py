import json

import numpy as np
import pytest
import torch

from diptych.core.config import from_json, to_json
from diptych.core.errors import EvalError
from diptych.data.corpora.scene_tests import SceneTestsConfig
from diptych.evals import composition
from diptych.evals.candidates import hits
from diptych.evals.composition import CompositionConfig
from tests.evals import fakes
from tests.evals.contract import Case
from tests.evals.fake_writer import writer
from tests.evals.two_captions import clip_benchmark_says, right_and_wrong


def _run(model, split, artifacts=False, **settings):
    return CompositionConfig(**settings).build().run(model, split, artifacts)


@pytest.mark.parametrize("kind", [fakes.Embeds, fakes.Scores])
def test_a_perfect_model_is_right_of_every_test(kind):
    result = _run(fakes.model(kind), right_and_wrong(40, 3, tests=2))
    for name in ("accuracy", "accuracy_all_items", "accuracy_test_0", "accuracy_test_1"):
        e = result.metrics[name]
        assert (e.value, e.chance) == (1, 0.25)
        assert e.above_chance
    assert result.metrics["accuracy"].n == 40
    assert result.metrics["accuracy_test_0"].n == 20
    assert result.metrics["gain_over_blind"].low > 0
    assert result.settings["solvable_blind"] == {}


def test_the_mean_over_tests_is_not_the_mean_over_items():
    split = right_and_wrong(40, 1, tests=1)
    for i in range(40):
        split._meta[i]["test"] = "rare" if i < 10 else "common"
        if i < 10:
            split._meta[i]["distractors"], split._captions[i] = [f"thing {i}"], (f"thing {i + 1}",)
    metrics = _run(fakes.model(), split).metrics
    assert (metrics["accuracy_rare"].value, metrics["accuracy_common"].value) == (0, 1)
    assert metrics["accuracy"].value == 0.5
    assert metrics["accuracy_all_items"].value == 0.75


def test_planted_what_can_be_told_from_the_words_is_found_and_named_and_not_in_the_clean_twin():
    clean = _run(fakes.model(), right_and_wrong(80, 1, tests=2))
    assert clean.settings["solvable_blind"] == {}
    for name in ("blank", "likely_words", "telling_words"):
        assert not clean.metrics[f"accuracy_{name}"].above_chance
    assert clean.metrics["gain_over_blind"].value > 0.4
    split = right_and_wrong(80, 1, tests=2)
    for meta in split._meta[::2]:
        meta["distractors"] = [f"thing {meta['distractors'][0].split()[1]} upside down"]
    leaky = _run(fakes.model(), split, True)
    assert "telling_words" in leaky.settings["solvable_blind"].pop("test 0")
    assert leaky.settings["solvable_blind"] == {}
    row = leaky.artifacts["by_test"][0]
    assert row["blind"]["telling_words"]["value"] == 1
    assert row["against_blind"]["verdict"] == "indistinguishable"
    assert leaky.artifacts["by_test"][1]["against_blind"]["verdict"] == "better"
    assert "Solvable blind, above chance without any model: test 0" in leaky.figures[1].words


def test_planted_a_model_that_does_not_look_gains_nothing():
    """It prefers what is likely; scores 60 % above chance, and all of that is known from the words."""
    split = right_and_wrong(60, 1, tests=1)
    for i, meta in enumerate(split._meta):
        meta["distractors"] = [f"nothing {(i + 9) % 60} anywhere"]
    knows = writer(split, blind=True)
    result = _run(knows, split)
    assert result.metrics["accuracy"].value > 0.9
    assert result.metrics["accuracy"].above_chance
    assert result.metrics["accuracy_prior"].value == result.metrics["accuracy_blank"].value > 0.9
    assert result.metrics["gain_over_blind"].value <= 0
    removed = _run(knows, split, text_prior="removed")
    assert removed.metrics["accuracy"].value == 0.5
    sees = _run(writer(right_and_wrong(60, 1, tests=1)), right_and_wrong(60, 1, tests=1), text_prior="removed")
    assert sees.metrics["accuracy"].value == 1
    assert sees.metrics["gain_over_blind"].low > 0


def test_ties_by_every_convention():
    model, split = fakes.model(fakes.Collapsed), right_and_wrong(20, 3)
    for ties, value in (("share", 0.25), ("wrong", 0.0), ("right", 1.0)):
        result = _run(model, split, ties=ties)
        assert result.metrics["accuracy"].value == value
        assert result.settings["ties"] == ties


def test_sets_groups_and_conventions_of_the_published_sets():
    split = right_and_wrong(40, 1, tests=1)
    for i, meta in enumerate(split._meta):
        meta |= {"set": i // 2, "group": "rare" if i < 4 else "on" if i < 20 else "under"}
        if i < 20 and i % 2:
            meta["distractors"], split._captions[i] = [f"thing {i}"], (f"thing {i + 7}",)
    result = _run(fakes.model(), split)
    assert result.metrics["sets_right"].value == 0.5
    assert (result.metrics["sets_right"].n, result.metrics["sets_right"].chance) == (20, 0.25)
    assert result.metrics["accuracy"].n == 20
    assert result.metrics["accuracy_test_0_over_groups"].value == pytest.approx((0.5 + 0.5 + 1) / 3)
    fewer = _run(fakes.model(), split, min_group=5)
    assert fewer.metrics["accuracy_test_0_over_groups"].value == pytest.approx(0.75)
    named = _run(fakes.model(), split, without_groups=("under",))
    assert named.metrics["accuracy_test_0_over_groups"].value == pytest.approx(0.5)


def test_it_agrees_with_clip_benchmark_to_the_last_digit_and_ties_are_the_difference():
    generator = torch.Generator().manual_seed(1)
    images, texts = torch.randn(200, 1, 8, generator=generator), torch.randn(200, 5, 8, generator=generator)
    images, texts = (torch.nn.functional.normalize(x, dim=-1) for x in (images, texts))
    texts[:, 0] = torch.nn.functional.normalize(texts[:, 0] + images[:, 0], dim=-1)
    scores = (images @ texts.transpose(1, 2))[:, 0].double().numpy()
    theirs = clip_benchmark_says(images, texts)
    assert np.float32(hits(scores, "share").mean()) == np.float32(theirs["text_acc"])
    texts[:50, 1] = texts[:50, 0]  # the right caption once more: theirs takes the first of equal scores
    scores = (images @ texts.transpose(1, 2))[:, 0].double().numpy()
    theirs = clip_benchmark_says(images, texts)
    assert np.float32(hits(scores, "right").mean()) == pytest.approx(theirs["text_acc"], abs=1e-7)
    tied = (hits(scores, "right") - hits(scores, "wrong"))[:50].mean()
    assert tied > 0.5
    assert hits(scores, "share").mean() == pytest.approx(
        (hits(scores, "right").mean() + hits(scores, "wrong").mean()) / 2
    )


def test_scene_tests_can_be_solved_by_no_text_and_say_so():
    records = list(SceneTestsConfig(size=36, resolution=16).build().records())
    split = fakes.FakeSplit(
        [fakes.picture(i) for i in range(36)], [r.segments[1].texts for r in records], [r.meta for r in records]
    )
    result = _run(writer(split, blind=True), split, True)
    for name in ("accuracy", "accuracy_blank", "accuracy_likely_words", "accuracy_telling_words"):
        assert result.metrics[name].value == 0.5, name
    assert result.metrics["sets_right"].value == 0
    assert result.settings["solvable_blind"] == {}
    assert len(result.settings["tests"]) == 9
    assert _run(writer(split), split).metrics["sets_right"].value == 1


def test_max_items_keeps_sets_whole_and_the_result_survives_the_disk():
    split = right_and_wrong(40, 1, tests=2)
    for i, meta in enumerate(split._meta):
        meta["set"] = i // 2
    result = _run(fakes.model(), split, True, max_items=11, pictures=3)
    assert result.settings["items"] == 12
    assert result.metrics["sets_right"].n == 6
    assert from_json(to_json(result)).metrics == result.metrics
    json.dumps(result.artifacts)
    assert [f.title for f in result.figures] == ["Accuracy by test", "Against those that do not look", "Hardest items"]
    wrong = _run(fakes.model(perfect=False), split, True, pictures=3).figures[2]
    assert len(wrong.pictures) == 3
    assert wrong.pictures[0].caption.startswith("test 0: thing")


def test_several_tests_of_one_record_are_items_of_one_image():
    split = right_and_wrong(30, 1, tests=1)
    for i, meta in enumerate(split._meta):
        meta["distractors"] = {"swap_obj": [f"thing {(i + 3) % 30}"], "add_att": [f"thing {(i + 5) % 30}"]}
    result = _run(fakes.model(), split, True)
    assert (result.settings["items"], result.metrics["accuracy"].n) == (60, 30)
    assert set(result.settings["tests"]) == {"add_att", "swap_obj"}
    assert len(set(result.items["items"].keys)) == 60


def test_what_it_does_not_suit_and_errors_that_teach():
    config = CompositionConfig()
    assert config.unsuited(fakes.model(), fakes.pairs(4)) == "no distractors in the meta of its records"
    assert config.unsuited(fakes.model(fakes.Mute), right_and_wrong(4)) == "the model scores no pairs"
    assert config.unsuited(fakes.model(), right_and_wrong(4)) == ""
    with pytest.raises(EvalError, match=r"a list `distractors` in their meta; got 4 in val without. Make some with"):
        _run(fakes.model(), fakes.pairs(4))
    split = right_and_wrong(8)
    split.images[2] = b"broken"
    result = _run(fakes.model(), split)
    assert (result.settings["items"], result.settings["broken_images"]["count"]) == (7, 1)


def test_names_of_tests_are_spelled_as_metrics():
    assert composition.spelled("Swap object/2") == "swap_object_2"
    assert composition.spelled("??") == "test"


def contract_cases():
    def maker(kind):
        def case(perfect, n):
            n = min(n, 100) if kind == "writes" else n
            split = right_and_wrong(n, 1 if kind == "writes" else 2, tests=3)
            model = writer(split, perfect) if kind == "writes" else fakes.model(kind, perfect)
            return Case(model, split, {}, n)

        return case

    return {getattr(kind, "__name__", kind): maker(kind) for kind in (fakes.Embeds, fakes.Scores, "writes")}
