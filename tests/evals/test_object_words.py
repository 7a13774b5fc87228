import random

import pytest

from diptych.core.errors import EvalError
from diptych.data.drawing import SHAPES
from diptych.evals.object_words import COCO, DOUBLE, MEANT, ObjectWords, objects_of, plurals, read_synonyms, vocabulary
from tests.evals.test_scene_facts import SCENE
from tests.reference.chair import mentions

SYNONYMS = {
    "man": "person", "woman": "person", "baby": "person", "adult": "person", "child": "person", "passenger": "person",
    "jet": "airplane", "bike": "bicycle", "seat": "chair", "puppy": "dog", "street light": "traffic light",
    "plate": "bowl", "computer": "laptop", "light": "clock", "cub": "bear",
}  # fmt: skip


@pytest.mark.parametrize(
    ("sentence", "named"),
    [
        ("Two men ride horses.", ["person", "horse"]),
        ("a hot dog on a plate, with knives", ["hot dog", "bowl", "knife"]),
        ("people and a person's dog", ["person", "person", "dog"]),
        ("a baby elephant and a baby", ["elephant", "person"]),
        ("a passenger jet", ["airplane"]),
        ("a player at home plate", []),
        ("the toilet seat is by the toilet", ["toilet", "toilet"]),
        ("a seat", ["chair"]),
        ("a street light, traffic lights", ["traffic light", "traffic light"]),
        ("a teddy bear beside a bear", ["teddy bear", "bear"]),
        ("a man in a bow tie at dining tables", ["person", "tie", "dining table"]),
        ("nothing of the kind", []),
    ],
)
def test_objects_are_found_by_name_synonym_and_plural(sentence, named):
    assert ObjectWords(COCO, SYNONYMS).mentions(sentence) == named


def test_equals_the_plain_reading_of_singular_words():
    """But for pairs of the table itself, which CHAIR knows only where they are among its double words."""
    names = {n: n for n in COCO if " " not in n or n in DOUBLE} | SYNONYMS
    finder = ObjectWords([n for n in COCO if n in names], SYNONYMS)
    draws = random.Random(0)
    pool = [w for phrase in (*names, *DOUBLE, *MEANT) for w in phrase.split()] + ["the", "on", "red"] * 20
    for _ in range(3000):
        words = draws.choices(pool, k=draws.randint(0, 10))
        assert finder.mentions(" ".join(words)) == mentions(words, names), words


def test_plurals():
    assert [plurals(w)[0] for w in ("box", "bus", "puppy", "boy", "knife", "mouse", "dog", "watch")] == [
        "boxes", "buses", "puppies", "boys", "knives", "mice", "dogs", "watches"
    ]  # fmt: skip
    assert plurals("potato") == ("potatos", "potatoes")


def test_what_a_record_says_is_there():
    assert objects_of({"objects": ["Dog", "cat", "dog"]}) == ["dog", "cat"]
    assert objects_of({"objects": [{"name": "dog", "bbox": [1, 2, 3, 4]}, {"label": "cat"}]}) == ["dog", "cat"]
    assert objects_of(SCENE) == ["circle", "square", "word"]
    assert objects_of({"objects": []}) == []
    assert objects_of({}) is None
    assert objects_of({"objects": [{"box": 3}]}) is None
    assert vocabulary([["dog"], ["cat"]], False) == COCO
    assert vocabulary([["dog"], ["unicorn"]], False) == ("dog", "unicorn")
    assert vocabulary([], True) == (*SHAPES, "word")
    assert len(COCO) == 80


def test_synonyms_come_from_a_file(tmp_path):
    path = tmp_path / "synonyms.txt"
    path.write_text("person, man, Woman\n\ndog, puppy\n")
    assert read_synonyms(path) == {"person": "person", "man": "person", "woman": "person", "dog": "dog", "puppy": "dog"}
    with pytest.raises(EvalError, match=r"synonyms must be a text file.*No such file.*person, man"):
        read_synonyms(tmp_path / "none")
