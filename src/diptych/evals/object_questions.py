"""Questions whether an object is in a picture, made of what is known to be in it, after POPE (arXiv:2305.10355, 4.1).

Of each picture as many objects that are there as objects that are not, so that half of all answers are yes. Absent
objects are chosen in three ways: at random; the most frequent of all (popular); those that most often stand beside
what is there (adversarial). The objects that are there are the same in all three.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from diptych.core.seeds import numpy_generator
from diptych.data.scene_words import article
from diptych.evals.questions import Question

CATEGORIES = ("random", "popular", "adversarial")


class Scenery(NamedTuple):
    """What is in the picture at `place`, and what people say is there besides (never asked for as absent)."""

    place: int
    uid: str
    objects: tuple[str, ...]
    said: frozenset[str] = frozenset()


def object_questions(
    pictures: Sequence[Scenery], names: Sequence[str], template: str, most: int, seed: int
) -> list[Question]:
    """At most `most` questions of either answer a picture and category. `template` holds {a} (an object with its
    article) or {object}; the category is the question's sort."""
    frequency = Counter(o for p in pictures for o in p.objects)
    together = _together(pictures)
    asked: list[Question] = []
    for picture in pictures:
        draws = numpy_generator(seed, "object_questions", picture.uid)
        absent = [n for n in names if n not in picture.objects and n not in picture.said]
        count = min(most, len(picture.objects), len(absent))
        present = [picture.objects[i] for i in draws.permutation(len(picture.objects))[:count]]
        beside = {n: sum(together.get((n, o), 0) for o in picture.objects) for n in absent}
        chosen = {
            "random": [absent[i] for i in draws.permutation(len(absent))[:count]],
            "popular": sorted(absent, key=lambda n: (-frequency[n], n))[:count],
            "adversarial": sorted(absent, key=lambda n, beside=beside: (-beside[n], -frequency[n], n))[:count],
        }
        for category in CATEGORIES:
            for objects, answer in ((present, "yes"), (chosen[category], "no")):
                asked += [Question(picture.place, worded(template, o), answer, category) for o in objects]
    return asked


def worded(template: str, name: str) -> str:
    """The question (or statement) about an object."""
    return template.replace("{a}", article(name)).replace("{object}", name)


def _together(pictures: Sequence[Scenery]) -> Mapping[tuple[str, str], int]:
    """In how many pictures two objects stand together."""
    return Counter((a, b) for p in pictures for a in p.objects for b in p.objects if a != b)
