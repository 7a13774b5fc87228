import io
import itertools
import math
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diptych.core.record import Record
from diptych.core.seeds import numpy_generator
from diptych.data.corpora import scene_tests
from diptych.data.corpora.corpus import get
from diptych.data.corpora.scene_tests import TESTS, SceneTestsConfig
from diptych.data.corpora.scenes import compose
from diptych.data.dataset import Dataset
from diptych.data.drawing import COLOURS, draw
from diptych.data.pack import PackConfig
from diptych.data.scene_words import NUMBERS, RELATIONS, captions, plural


@pytest.fixture(scope="module")
def records() -> list[Record]:
    """Undrawn: for what is said and what stands in the meta."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene_tests, "encoded", lambda code, resolution: b"")
        return _records(size=720)


@pytest.fixture(scope="module")
def trained() -> list[str]:
    """Captions of scenes."""
    return [t for i in range(800) for t in captions(compose(numpy_generator(0, "scene", i)))]


def _records(**config: object) -> list[Record]:
    return list(SceneTestsConfig(**config).build().records())  # type: ignore[arg-type, misc]


def _right(record: Record) -> str:
    return record.segments[1].texts[0]


def _pixels(record: Record) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(record.segments[0].data)))


def holds(sentence: str, meta: dict[str, Any]) -> bool:
    """Whether a sentence is true of a picture, by its facts alone: the plainest reading, apart from the corpus's."""
    said = set()
    for thing in meta["objects"]:
        n = len(thing["boxes"])
        if thing["shape"] == "word":
            said.add(f"the word {thing['word']} in {thing['colour']}")
            continue
        for size in (f"{thing['size']} ", ""):
            what = f"{size}{thing['colour']} {thing['shape']}"
            said.add(f"{'an' if what[0] in 'aeiou' else 'a'} {what}" if n == 1 else f"{NUMBERS[n]} {plural(what)}")
    if found := re.fullmatch(r"there is no (\w+)", sentence):
        return all(found[1] != t["shape"] for t in meta["objects"])
    sentence = sentence.removeprefix("a picture of ")
    if found := re.fullmatch(r"(.*) on a (\w+) background", sentence):
        if found[2] != meta["background"]:
            return False
        sentence = found[1]
    for words in RELATIONS:
        if f" {words} " in sentence:
            a, b = sentence.split(f" {words} ")
            (ax, ay), (bx, by) = (_centre(part, meta) for part in (a, b))
            where = {"above": ay < by, "below": ay > by, "to the left of": ax < bx, "to the right of": ax > bx}
            return {a, b} <= said and where[words]
    denied = [p.removeprefix("no ") for p in sentence.split(" and ") if p.startswith("no ")]
    claimed = [p for chunk in sentence.split(", ") for p in chunk.split(" and ") if not p.startswith("no ")]
    there = {f"{t['size']} {t['colour']} {t['shape']}" for t in meta["objects"]}
    return set(claimed) <= said and not set(denied) & there


def _centre(part: str, meta: dict[str, Any]) -> tuple[float, float]:
    for t in meta["objects"]:
        if part.endswith(f"{t['size']} {t['colour']} {t['shape']}"):
            left, top, right, bottom = t["boxes"][0]
            return (left + right) / 2, (top + bottom) / 2
    return math.nan, math.nan


def test_the_right_caption_is_true_and_every_distractor_false(records: list[Record]) -> None:
    for record in records:
        assert holds(_right(record), record.meta), (_right(record), record.meta)
        for wrong in record.meta["distractors"]:
            assert not holds(wrong, record.meta), (wrong, record.meta)


def test_the_check_is_no_rubber_stamp(records: list[Record]) -> None:
    """A caption of another set is hardly ever true."""
    others = zip(records[:-18], records[18:], strict=True)  # of the same test
    true = [holds(_right(b), a.meta) for a, b in others if a.meta["test"] != "negation"]
    assert sum(true) < 0.02 * len(true)


def test_sets_are_two_pictures_and_two_captions_that_differ_in_the_fact_alone(records: list[Record]) -> None:
    assert {r.meta["split"] for r in records} == {"test"}
    assert Counter(r.meta["test"] for r in records) == dict.fromkeys(TESTS, 80)
    for one, other in _twos(records):
        assert one.meta["set"] == other.meta["set"]
        assert one.meta["test"] == other.meta["test"]
        assert one.meta["distractors"] == [_right(other)]
        assert other.meta["distractors"] == [_right(one)]
        assert one.meta["background"] == other.meta["background"]
        assert len(_right(one).split()) == len(_right(other).split()) or one.meta["test"] == "relation"
        if one.meta["test"] in ("swap_attribute", "word_order"):
            plain = [re.sub(r"s\b", "", _right(r)).replace("an ", "a ").split() for r in (one, other)]
            assert sorted(plain[0]) == sorted(plain[1])
        changed = sum(a != b for a, b in zip(*(r.meta["code"].split("\n") for r in (one, other)), strict=False))
        assert changed <= (2 if one.meta["test"] in ("relation", "word_order") else 8)


def _twos(records: list[Record]) -> list[tuple[Record, Record]]:
    return list(zip(records[::2], records[1::2], strict=True))


class _Bigrams:
    """log p of a text by its words and pairs of words, learned from captions: what can be known without looking."""

    def __init__(self, captions: list[str]) -> None:
        rows = [["<", *c.split(), ">"] for c in captions]
        self.words = Counter(w for row in rows for w in row)
        self.pairs = Counter(p for row in rows for p in itertools.pairwise(row))
        self.total = sum(self.words.values())

    def __call__(self, text: str) -> float:
        row = ["<", *text.split(), ">"]
        return sum(
            math.log((self.pairs[a, b] + (self.words[b] + 1) / (self.total + 1000)) / (self.words[a] + 1))
            for a, b in itertools.pairwise(row)
        )


def _share(judge: Any, records: list[Record]) -> float:
    hits = []
    for record in records:
        margin = judge(_right(record)) - max(map(judge, record.meta["distractors"]))
        hits.append(0.5 if abs(margin) < 1e-9 else float(margin > 0))
    return float(np.mean(hits))


def test_a_model_of_the_words_alone_is_right_half_of_the_time(records: list[Record], trained: list[str]) -> None:
    judge = _Bigrams(trained)
    for name in TESTS:
        mine = [r for r in records if r.meta["test"] == name]
        assert _share(judge, mine) == 0.5
        assert _share(len, mine) == 0.5
    # planted: a distractor in words that no scene has
    spoilt = [
        Record(r.key, r.segments, {**r.meta, "distractors": [_right(r).replace("a ", "some ", 1)]}) for r in records
    ]
    assert _share(judge, [r for r in spoilt if _right(r) != r.meta["distractors"][0]]) > 0.95
    # planted: one picture of each set, the one whose caption is the more likely
    likely = [max(two, key=lambda r: judge(_right(r))) for two in _twos(records)]
    assert _share(judge, likely) > 0.75


def test_most_captions_are_of_the_forms_that_scenes_are_trained_on(records: list[Record], trained: list[str]) -> None:
    words = {w for t in trained for w in t.split()}
    for record in records:
        new = {w.strip(",") for w in _right(record).split()} - {w.strip(",") for w in words}
        assert new <= ({"there", "is", "no"} if record.meta["test"].startswith("negation") else set())


def test_negations_name_both_or_only_what_is_absent(records: list[Record]) -> None:
    first = Counter(_right(r).startswith("no ") for r in records if r.meta["test"] == "negation_scope")
    assert min(first.values()) > 20
    for r in records:
        if r.meta["test"] == "negation":  # who overhears the "no" takes the wrong one, always
            shapes = {t["shape"] for t in r.meta["objects"]}
            assert _right(r).split()[-1] not in shapes
            assert r.meta["distractors"][0].split()[-1] in shapes


def test_pictures_are_drawn_as_their_facts_say() -> None:
    for record in _records(size=36, resolution=64):
        pixels = _pixels(record).astype(int)
        assert np.array_equal(np.asarray(draw(record.meta["code"], 64)), _pixels(record))
        seen = {c for c, rgb in COLOURS.items() if (pixels == rgb).all(-1).any()}
        assert seen == {o["colour"] for o in record.meta["objects"]}
        boxes = [b for o in record.meta["objects"] for b in o["boxes"]]
        assert all(min(b) >= 0 and max(b) <= 64 for b in boxes)
        for a, b in itertools.combinations(boxes, 2):
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_a_record_is_a_function_of_seed_and_number() -> None:
    few, many = _records(size=6, resolution=16), _records(size=9, resolution=16)
    assert few == many[:6]
    large = _records(size=6, resolution=64)
    assert [r.meta["code"] for r in large] == [r.meta["code"] for r in few]
    assert [r.meta["code"] for r in _records(size=6, resolution=16, seed=1)] != [r.meta["code"] for r in few]


def test_it_packs_into_one_split(tmp_path: Any) -> None:
    folder = get("scene_tests", tmp_path / "o", PackConfig(val=0.0, jobs=1, tokenizer="none"), size=36, resolution=16)
    data = Dataset.open(folder)
    assert {name: len(split) for name, split in data.splits.items()} == {"test": 36}
    assert data.split("test").meta(0)["distractors"]
