"""Selections out of selections, said in words: ``A and B``, ``A or B minus C``, ``top 0.3 by clip of DIR``.

A line of words is read from left to right; every step changes what stands so far, and none binds tighter than another.
Brackets, words of their own, come first:

    line   =  part step*
    part   =  SELECTION                    a folder that curate or combine wrote, or a .npy of uids
           |  all of DIR                   every record of a packed dataset (of its splits that are asked for)
           |  top N by SCORE of DIR        those with the highest score in it
           |  [ line ]
    step   =  and part  |  or part  |  minus part
           |  sample N [seed=S]            N of them, the same ones wherever the others come from
           |  top N by SCORE of DIR        of what stands, those with the highest score

N is a share where it is written with a point (0.3), else a number of records (10000). A share of the top is DataComp's
rule: what ties with the last one stays; a number is exact, the smaller uid first.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from diptych.core.errors import ConfigError, DataError
from diptych.core.files import new_directory, write_json
from diptych.data.candidates import CandidatePool
from diptych.data.selection import PAIR, Selection, as_pairs, uids_of

FORMAT = 1
SETS: dict[str, Callable[[Selection, Selection], Selection]] = {
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "minus": lambda a, b: a - b,
}
OPEN, CLOSE = ("[", "("), ("]", ")")
EXAMPLES = "Examples: A and B; A or B minus C; top 0.3 by clip of DIR; all of DIR minus A sample 10000 seed=1."


@dataclass(frozen=True)
class Step:
    """One step of a combination: what it was, in words, and how many records stood after it."""

    words: str
    records: int
    selection: str


@dataclass(frozen=True)
class Combination:
    """What came of a line of words. `inputs`: every selection and dataset that it names, with what it held."""

    words: tuple[str, ...]
    selection: Selection
    steps: tuple[Step, ...]
    inputs: tuple[dict[str, Any], ...]

    def __str__(self) -> str:
        width = max(len(s.words) for s in self.steps)
        return "\n".join(f"{s.words:<{width}}  {s.records:>12,}" for s in self.steps)


def combine(words: Sequence[str], splits: Sequence[str] = ("train",)) -> Combination:
    """What a line of words says. `splits`: of the datasets that it names. Raises ConfigError for words that are none
    of it, DataError for selections, datasets and scores that are not there."""
    reader = _Reader(words, splits)
    selection = reader.line()
    if reader.at < len(reader.words):
        raise reader.wrong("and, or, minus, sample or top")
    return Combination(reader.words, selection, tuple(reader.steps), tuple(reader.inputs))


def write_combination(found: Combination, out: str | PathLike[str]) -> None:
    """Write the folder: selection.npy, and combination.json that says how it came about.

    Raises ConfigError where `out` holds something, or nothing is selected.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"the output must be a new folder; got {out}, which holds something. Name another --out.")
    if not len(found.selection):
        raise ConfigError(
            f"a combination must leave at least one record; '{' '.join(found.words)}' leaves none:\n{found}\n"
            "Selections of different datasets share no records."
        )
    about = {
        "format": FORMAT,
        "words": list(found.words),
        "kept": len(found.selection),
        "selection": found.selection.fingerprint,
        "steps": [{"step": s.words, "records": s.records, "selection": s.selection} for s in found.steps],
        "inputs": list(found.inputs),
    }
    with new_directory(out) as folder:
        found.selection.save(folder / "selection.npy")
        write_json(folder / "combination.json", about)


class _Reader:
    """Reads words from left to right, and does what they say."""

    def __init__(self, words: Sequence[str], splits: Sequence[str]) -> None:
        self.words, self.splits, self.at = tuple(words), tuple(splits), 0
        self.steps: list[Step] = []
        self.inputs: list[dict[str, Any]] = []

    def line(self) -> Selection:
        first = self.at
        stands = self._note(self.part(), first)
        while self.at < len(self.words) and self.words[self.at] not in CLOSE:
            first, word = self.at, self.words[self.at]
            self.at += 1
            if word in SETS:
                stands = SETS[word](stands, self.part())
            elif word == "sample":
                stands = self._sample(stands)
            elif word == "top":
                stands = self._top(stands)
            else:
                self.at -= 1
                raise self.wrong("and, or, minus, sample or top")
            self._note(stands, first)
        return stands

    def part(self) -> Selection:
        word = self._next("a selection")
        if word in OPEN:
            inside = self.line()
            if self._next("a closing bracket") not in CLOSE:
                self.at -= 1
                raise self.wrong("a closing bracket")
            return inside
        if word == "top":
            return self._top(None)
        if word == "all":
            self._expect("of")
            return self._all(self._pool())
        if word in (*SETS, *CLOSE, "sample", "by", "of"):
            self.at -= 1
            raise self.wrong("a selection")
        return self._load(word)

    def _load(self, word: str) -> Selection:
        path = Path(word)
        if (path / "dataset.json").is_file() and not (path / "selection.npy").is_file():
            raise ConfigError(
                f"a selection must be a folder that curate or combine wrote, or a .npy; got {word}, a packed dataset. "
                f"Say: all of {word}"
            )
        found = Selection.load(path)
        pool: Any = None
        if (path / "curation.json").is_file():
            pool = json.loads((path / "curation.json").read_text()).get("pool")
        said = {"path": word, "records": len(found), "selection": found.fingerprint}
        self.inputs.append(said | ({"pool": pool} if pool else {}))
        return found

    def _pool(self) -> CandidatePool:
        word = self._next("a packed dataset")
        pool = CandidatePool(word, self.splits)
        self.inputs.append(
            {
                "path": word,
                "splits": list(self.splits),
                "records": len(pool),
                "fingerprint": pool.dataset.fingerprint,
            }
        )
        return pool

    def _all(self, pool: CandidatePool) -> Selection:
        return Selection(np.concatenate([pool.dataset.split(s).uids() for s in self.splits]))

    def _sample(self, stands: Selection) -> Selection:
        count = self._count(len(stands))
        seed = 0
        if self.at < len(self.words) and self.words[self.at].startswith("seed="):
            said = self._next("a seed").removeprefix("seed=")
            if not said.isdecimal():
                raise ConfigError(f"a seed must be a whole number; got {said!r}. Example: sample 10000 seed=1")
            seed = int(said)
        return stands.sample(count, seed)

    def _top(self, among: Selection | None) -> Selection:
        place = self.at
        self._next("a share or a number")
        self._expect("by")
        score = self._next("the name of scores")
        self._expect("of")
        pool = self._pool()
        uids, values = _scored(pool, score, among)
        if not len(uids):
            raise DataError(
                f"scores {score!r} of {pool.path} must be of what was selected; they are of none of it. "
                "The selection belongs to another dataset, or to another of its --split."
            )
        after, self.at = self.at, place
        count, share = self._count(len(uids)), "." in self.words[place]
        self.at = after
        return _highest(uids, values, count, share)

    def _count(self, of: int) -> int:
        """A share (with a point) or a number, as a number of `of` records."""
        said = self._next("a share or a number")
        try:
            share = "." in said
            value = float(said) if share else int(said)
        except ValueError:
            value, share = -1, False
        if (not 0 < value <= 1) if share else value < 1:
            raise ConfigError(
                f"how many must be a share above 0 and at most 1.0, written with a point, or a number of records from "
                f"1; got {said!r}. {EXAMPLES}"
            )
        if not share and value > of:
            raise ConfigError(f"how many must be at most the {of:,} records that there are; got {said}. Take fewer.")
        return int(of * value) if share else int(value)

    def _note(self, stands: Selection, first: int) -> Selection:
        said = " ".join(self.words[first : self.at])
        self.steps.append(Step(said, len(stands), stands.fingerprint))
        return stands

    def _expect(self, word: str) -> None:
        if self._next(word) != word:
            self.at -= 1
            raise self.wrong(word)

    def _next(self, wanted: str) -> str:
        if self.at >= len(self.words):
            raise self.wrong(wanted)
        self.at += 1
        return self.words[self.at - 1]

    def wrong(self, wanted: str) -> ConfigError:
        got = repr(self.words[self.at]) if self.at < len(self.words) else "the end"
        before = f" after '{' '.join(self.words[: self.at])}'" if self.at else ""
        return ConfigError(f"a combination must go on with {wanted}{before}; got {got}. {EXAMPLES}")


def _scored(pool: CandidatePool, score: str, among: Selection | None) -> tuple[np.ndarray, np.ndarray]:
    """The uids as pairs and the scores of a pool's records that have a number, of those in `among`: 20 bytes each."""
    pairs, values = [np.zeros(0, PAIR)], [np.zeros(0, np.float32)]
    for shard in pool.shards:
        rows = pool.rows(shard)
        found = rows.scores(score).astype(np.float32)
        wanted = ~np.isnan(found)
        if among is not None:
            wanted &= among.holds(rows.uids)
        pairs.append(as_pairs(rows.uids)[wanted])
        values.append(found[wanted])
    return np.concatenate(pairs), np.concatenate(values)


def _highest(pairs: np.ndarray, values: np.ndarray, count: int, share: bool) -> Selection:
    if share:  # DataComp: the threshold is the count-th in descending order, counted from 0; with all of them, none
        if count < len(values):
            lowest = np.partition(values, len(values) - 1 - count)[len(values) - 1 - count]
            pairs = pairs[values >= lowest]
        return Selection(uids_of(pairs))
    by_uid = np.argsort(pairs, order=("f0", "f1"))
    best = by_uid[np.argsort(-values[by_uid], kind="stable")[:count]]
    return Selection(uids_of(pairs[best]))
