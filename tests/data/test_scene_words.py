import numpy as np
import pytest

from diptych.data.scene_words import Scene, Thing, article, captions, foils, negations, phrase, plural, questions

BOX = (0, 0, 10, 10)
RING = Thing("ring", "orange", "small", (BOX,))
CROSSES = Thing("cross", "red", "large", (BOX, BOX, BOX))
STAR = Thing("star", "blue", "large", (BOX,))
WORD = Thing("word", "black", "", (BOX,), "MAP")
PAIR = Scene("grey", (RING, STAR), ((0, "above", 1), (1, "below", 0)))


def test_grammar() -> None:
    assert (plural("cross"), plural("hexagon")) == ("crosses", "hexagons")
    assert (article("orange ring"), article("ring")) == ("an orange ring", "a ring")
    assert phrase(RING) == "a small orange ring"
    assert phrase(RING, size=False) == "an orange ring"
    assert phrase(CROSSES) == "three large red crosses"
    assert phrase(WORD) == "the word MAP in black"


def test_captions_begin_with_the_fullest() -> None:
    assert captions(PAIR) == (
        "a small orange ring above a large blue star on a grey background",
        "a small orange ring above a large blue star",
        "a large blue star below a small orange ring",
        "a small orange ring and a large blue star",
        "an orange ring and a blue star",
        "a picture of an orange ring and a blue star",
    )
    assert captions(Scene("white", (CROSSES, STAR, WORD), ()))[1] == (
        "three large red crosses, a large blue star and the word MAP in black"
    )


@pytest.mark.parametrize("scene", [PAIR, Scene("white", (CROSSES, STAR, WORD), ()), Scene("white", (CROSSES,), ())])
def test_no_foil_is_true(scene: Scene) -> None:
    for seed in range(50):
        found = foils(scene, np.random.default_rng(seed))
        assert {"colour", "shape", "count"} <= set(found)
        assert not set(found.values()) & set(captions(scene))


def test_foils_differ_in_the_one_fact() -> None:
    found = foils(PAIR, np.random.default_rng(0))
    assert found["relation"] == "a small orange ring below a large blue star"
    assert found["order"] == "a large blue star above a small orange ring"
    assert found["binding"] == "a small blue ring and a large orange star"
    twins = Scene("white", (STAR, Thing("star", "red", "large", (BOX,))), ())
    assert "binding" not in foils(twins, np.random.default_rng(0))  # swapping the colours of equals changes nothing


def test_negations_say_whether_they_are_true() -> None:
    for seed in range(20):
        for text, true in negations(PAIR, np.random.default_rng(seed)):
            named = [w for w in ("ring", "star") if f"no {w}" in text] + [
                w for w in ("orange", "blue") if f"nothing is {w}" in text
            ]
            assert true == (not named), text


def test_questions_have_one_answer() -> None:
    asked = {q: a for _, q, a in questions(PAIR, np.random.default_rng(0))}
    assert asked["how many rings are there?"] == "1"
    assert asked["what colour is the star?"] == "blue"
    assert asked["is the ring small or large?"] == "small"
    assert asked["is the small orange ring above the large blue star?"] == "yes"
    assert asked["is the small orange ring below the large blue star?"] == "no"
    assert asked["what colour is the background?"] == "grey"
    twins = Scene("white", (STAR, Thing("star", "red", "small", (BOX, BOX)), WORD), ())
    asked = {q: a for _, q, a in questions(twins, np.random.default_rng(0))}
    assert asked["how many stars are there?"] == "3"
    assert asked["what does it say?"] == "MAP"
    assert "what colour is the star?" not in asked  # which one?
    many = {q: a for _, q, a in questions(Scene("white", (CROSSES,), ()), np.random.default_rng(0))}
    assert many["what colour are the crosses?"] == "red"
