from collections import Counter

from diptych.evals.object_questions import CATEGORIES, Scenery, object_questions, worded

NAMES = ("ant", "bee", "cat", "dog", "elk", "fox")
PICTURES = [
    *[Scenery(i, f"u{i}", ("ant", "bee")) for i in range(5)],
    *[Scenery(i, f"u{i}", ("cat", "dog")) for i in range(5, 12)],
    Scenery(12, "u12", ("ant",)),
    Scenery(13, "u13", ("elk",), frozenset({"fox"})),
    Scenery(14, "u14", ()),
]


def _asked(most=2, seed=0, pictures=PICTURES):
    return object_questions(pictures, NAMES, "is there {a}?", most, seed)


def test_half_of_the_answers_are_yes_in_each_picture_and_category():
    found = Counter((q.place, q.sort, q.answer) for q in _asked())
    for place, picture in enumerate(PICTURES):
        for category in CATEGORIES:
            assert found[place, category, "yes"] == found[place, category, "no"] == min(2, len(picture.objects))


def test_answers_are_true_and_none_is_asked_that_people_name():
    for q in _asked(most=3):
        there = [worded("is there {a}?", o) for o in PICTURES[q.place].objects]
        assert (q.question in there) == (q.answer == "yes")
        assert q.place != 13 or q.question != "is there a fox?"


def test_absent_objects_are_popular_or_what_stands_beside():
    no = {(q.place, q.sort): q.question for q in _asked(most=1) if q.answer == "no"}
    assert no[12, "popular"] == "is there a cat?", "cats and dogs are most frequent, cats come first"
    assert no[12, "adversarial"] == "is there a bee?", "bees stand beside ants"
    assert no[13, "popular"] == "is there a cat?"
    assert len({no[i, "random"] for i in range(12)}) > 2


def test_the_same_each_time_and_for_any_part_of_the_pictures():
    assert _asked() == _asked()
    assert _asked(seed=1) != _asked()
    random = [q for q in _asked() if q.sort == "random" and q.place == 3]
    assert [q for q in _asked(pictures=PICTURES[3:4]) if q.sort == "random"] == random


def test_words():
    assert worded("is there {a}?", "elk") == "is there an elk?"
    assert worded("do you see the {object}?", "dog") == "do you see the dog?"
