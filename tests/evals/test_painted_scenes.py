import pytest

from diptych.core.errors import EvalError
from diptych.core.seeds import permute
from diptych.evals.nearest_captions import nearest_captions
from diptych.evals.painted_scenes import PaintedScenesConfig, in_words
from tests.evals import fakes
from tests.evals.contract import Case
from tests.evals.fake_painter import painter
from tests.evals.scene_data import SIDE, knows_all, paints, pixels, scenes


def _case(n, which):
    data = scenes(n)
    knows_all(data)
    return painter(paints(data, which), SIDE), data.split("val")


def contract_cases():
    def make(perfect, n):
        model, split = _case(n, (lambda i: i) if perfect else (lambda i: permute(i, n, "wrong")))
        return Case(model, split, {"bootstrap": 100}, n)

    return {"painter": make}


def _run(model, split, artifacts=False, **settings):
    return PaintedScenesConfig(**{"bootstrap": 100, **settings}).build().run(model, split, artifacts)


def test_who_paints_what_is_said_stands_at_the_ceiling_and_above_the_copies():
    result = _run(*_case(60, lambda i: i), True)
    m = result.metrics
    assert next(iter(m)) == "facts_accuracy"
    for fact in ("facts", "all_facts", "object", "colour", "count", "relation", "size", "background", "text"):
        assert m[f"{fact}_accuracy"].value == m[f"real_{fact}_accuracy"].value == 1, fact
        assert m[f"{fact}_accuracy"].above_chance, fact
        assert m[f"copy_{fact}_accuracy"].value < 1, fact
    assert m["facts_gain_over_copy"].low > 0
    assert m["detector_accuracy"].value == 1
    assert result.settings["detector_learned_from"] == 40
    shown = result.figures[1].pictures
    assert len(shown) == 24
    assert all(p.verdict == "right" for p in shown)
    assert shown[0].detail.startswith("seen: ")


def test_who_copies_is_the_copy_baseline():
    data = scenes(60)
    knows_all(data)
    val, train = data.split("val"), data.split("train")
    probe = _run(*_case(60, lambda i: i), True)
    copies = probe.items["images"].values["copy_facts_accuracy"]
    captions = [val.captions(i)[0] for i in range(60)]
    nearest = nearest_captions(captions, [train.captions(p)[0] for p in range(40)])
    model = painter({c: pixels(train, p) for c, p in zip(captions, nearest.place.tolist(), strict=True)}, SIDE)
    result = _run(model, val, True)
    assert result.items["images"].values["facts_accuracy"].tolist() == copies.tolist()
    assert result.metrics["facts_gain_over_copy"].value == 0
    assert result.metrics["real_facts_accuracy"].value == 1


def test_noise_shows_nothing():
    data = scenes(60)
    knows_all(data)
    metrics = _run(painter({}, SIDE), data.split("val")).metrics
    assert metrics["facts_accuracy"].value == metrics["facts_accuracy"].chance == 0
    assert not metrics["facts_accuracy"].above_chance


def test_settings_reach_the_painter_and_wrong_data_are_refused():
    model, split = _case(60, lambda i: i)
    _run(model, split, max_items=20, painting={"seed": 5, "guidance": 2.0})
    assert model.model.asked[-1].guidance == 2
    assert model.model.asked[-1].seed == 5
    assert PaintedScenesConfig().unsuited(model, split) == ""
    assert "no generate_image" in PaintedScenesConfig().unsuited(fakes.model(), split)
    assert "no generated scenes" in PaintedScenesConfig().unsuited(model, fakes.pairs(3))
    assert "no split 'learn'" in PaintedScenesConfig(train_split="learn").unsuited(model, split)
    with pytest.raises(EvalError, match=r"belongs to none\. Name it: data=DIR"):
        _run(model, fakes.pairs(3))
    with pytest.raises(EvalError, match="other scenes than its detector learns from; got the split 'train' for both"):
        _run(model, scenes(60).split("train"))


def test_scenes_are_told_in_words():
    thing = {"shape": "circle", "colour": "red", "size": "small", "word": "", "boxes": [[0, 0, 1, 1]] * 12}
    word = {"shape": "word", "colour": "black", "size": "", "word": "MAP", "boxes": [[0, 0, 1, 1]]}
    scene = {"objects": [thing, word], "background": "grey", "relations": []}
    assert in_words(scene) == "nine small red circles and the word MAP in black on grey"
    assert in_words({"objects": [], "background": "white", "relations": []}) == "nothing on white"
