import numpy as np
import pytest

from diptych.evals.fact_metrics import SceneFacts, per_image
from diptych.evals.written import Written

META = [
    {
        "background": "white",
        "objects": [{"shape": "circle", "colour": c, "size": "small", "word": "", "boxes": [[0, 0, 1, 1]]}],
        "relations": [],
    }
    for c in ("red", "blue", "green", "red")
]
TRUE = ["a small red circle", "a small blue circle", "a small green circle", "a small red circle"]


def _facts(captions, blank="a red circle", clusters=(0, 1, 2, 3)):
    written = Written(list(range(4)), [(t,) for t in TRUE], captions, np.array(clusters), blank)
    return SceneFacts(META, written, [np.array([1, 2, 3, 0])], 200)


def test_claims_are_counted_and_what_cannot_be_read_is_false():
    facts = _facts(["a large red circle", "two red circles", "blah", "a red square"])
    metrics = facts.metrics()
    assert metrics["object_accuracy"].value == 2 / 4  # blah and the square are none
    assert metrics["colour_accuracy"].value == 1 / 4
    assert metrics["count_accuracy"].value == 1 / 4
    assert metrics["size_accuracy"].value == 0 / 2  # said once, and once to be said
    assert metrics["parsed_share"].value == 3 / 4
    assert metrics["all_facts_accuracy"].value == 0
    assert metrics["named_recall"].value == 1 / 4
    assert "relation_accuracy" not in metrics
    tables = facts.tables()
    assert tables["unparsed"] == {"count": 1, "first": ["blah"]}
    assert {r["fact"] for r in tables["facts"]} == {"object", "colour", "size", "count"}


def test_chance_and_the_blind_model_stand_beside():
    metrics = _facts(TRUE).metrics()
    colour = metrics["colour_accuracy"]
    assert (colour.value, colour.chance, colour.n) == (1, 1 / 4, 4)  # dealt by one place, one red meets the other
    assert metrics["blind_all_facts_accuracy"].value == 1 / 2
    gain = metrics["all_facts_gain_over_blind"]
    assert (gain.value, gain.chance) == (0.5, 0)
    assert _facts(TRUE).tables()["facts"][1] == {
        "fact": "colour",
        "claimed": 4,
        "true": 4,
        "chance": 0.25,
        "blind": 0.5,
    }
    without = _facts(TRUE, blank=None)
    assert "blind_all_facts_accuracy" not in without.metrics()
    assert "facts_against_blind" not in without.tables()


def test_equal_images_are_one():
    assert _facts(TRUE, clusters=(0, 1, 2, 0)).metrics()["colour_accuracy"].n == 3


def test_values_of_each_image():
    values = per_image(_facts(["a red circle", "a red circle", "?", "a red square"]).said)
    assert values["object_accuracy"].tolist() == [1, 1, 0, 0]
    assert values["all_facts_accuracy"].tolist() == [1, 0, 0, 0]
    assert values["named_recall"] == pytest.approx([1, 0, 0, 0])
