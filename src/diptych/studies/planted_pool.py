"""A pool whose faults are known: a clean dataset's records, some of them spoilt, and copies of them, with the truth.

    mismatched   captions of another record of the pool, none of which is one of its own
    exact_copy   one more record with the bytes of a clean one's picture
    near_copy    one more record with a clean one's picture saved anew (`planted_copies.py`)
    boilerplate  a caption that says nothing in the place of its own (`planted_captions.py`)
    leaked       a test picture, the bytes of every second one, else saved anew, with its captions

Each record has one fault or none, and each clean record at most one copy. Who is spoilt, and how, are hashes of uids.

The clean dataset is cleansed first of what it has of these itself: of pictures that look alike the first one is in the
pool (none, where a test picture looks like them), and captions that many records share are taken from all of them.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import Field, model_validator

from diptych.core.config import Config
from diptych.core.errors import ConfigError, DataError
from diptych.core.files import write_json
from diptych.core.progress import say
from diptych.core.record import Record
from diptych.core.seeds import fold
from diptych.data.dataset import Dataset, Split
from diptych.data.near_copies import Sketches, read_sketches
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.source import Source
from diptych.studies.look_alikes import like_an_earlier
from diptych.studies.planted_captions import boilerplate
from diptych.studies.planted_copies import saved_anew

FAULTS = ("mismatched", "exact_copy", "near_copy", "boilerplate", "leaked")
CLEAN = "clean"
TRUTH, ABOUT = "truth.parquet", "planted.json"
SCHEMA = pa.schema([(name, pa.string()) for name in ("uid", "fault", "how", "picture_of", "captions_of")])
"""A row a record of the pool. `how`: the way a copy was made ("equal": byte for byte), or the kind of a boilerplate
caption. `picture_of` and `captions_of`: whose they are, by uids of the clean dataset ("" for boilerplate)."""


class PlantedPoolConfig(Config):
    """Shares of the pool that have each fault, the rest being clean.

    duplicates   half of them exact, half near; every one has its original in the pool besides, which is clean
    most_shared  captions that more records of the clean dataset have than this are its own boilerplate, and left out,
                 and with them records that say nothing else; 0: none are
    split, test  of the clean dataset: what the pool is made of, and whose pictures leak
    """

    mismatched: float = Field(default=0.3, ge=0, lt=1)
    duplicates: float = Field(default=0.2, ge=0, lt=1)
    boilerplate: float = Field(default=0.1, ge=0, lt=1)
    leaked: float = Field(default=0.01, ge=0, lt=1)
    most_shared: int = Field(default=20, ge=0)
    split: str = "train"
    test: str = "test"
    seed: int = 0

    @model_validator(mode="after")
    def _leave_some(self) -> "PlantedPoolConfig":
        total = self.mismatched + self.duplicates + self.boilerplate + self.leaked
        if total >= 1:
            raise ValueError(
                f"shares of faults must leave clean records; got {total:g} in all. Lower mismatched, duplicates, "
                "boilerplate or leaked."
            )
        return self


class Planted(NamedTuple):
    """One record of the pool. `split` and `place`: whose picture it has. `said`: the place of the record whose captions
    it has; -1: boilerplate."""

    split: str
    place: int
    fault: str
    how: str
    said: int


class PlantedPool(Source):
    """The pool's records (split "train") and, of the test split of the dataset, those whose pictures look like none
    before them (split "test").

    `left_out`: how many records of the clean dataset are not in it, having nothing of their own to say or to show.
    """

    def __init__(self, config: PlantedPoolConfig, base: str | Path) -> None:
        self.settings, dataset = config, Dataset.open(base)
        self._split, self._tests = dataset.split(config.split), dataset.split(config.test)
        self._base = dataset.path
        self._shared = _shared_captions((self._split, self._tests), config.most_shared)
        self._judged, tests, places = self._distinct()
        self.left_out = len(self._split) - len(places)
        self.plan = self._planned(places, tests)

    @property
    def name(self) -> str:
        """What it is made of."""
        return f"{self._base} with planted faults"

    def records(self) -> Iterator[Record]:
        """The records in the order of the plan, then the tests."""
        for number, planted in enumerate(self.plan):
            yield self._record(f"{number:07d}", planted)
        for place in self._judged:
            record = self._tests.record(place)
            yield replace(record, key=f"test-{place:07d}", meta={**record.meta, "split": "test"})

    def count(self) -> int:
        """How many there are."""
        return len(self.plan) + len(self._judged)

    def truth(self, packed: Path) -> pa.Table:
        """A row a record of the pool, in its order, with the uids that they got in the folder `packed`."""
        rows = pq.read_table(packed / "records.parquet", columns=["key", "uid"]).to_pylist()
        uids = {row["key"]: row["uid"] for row in rows}
        table = [
            {
                "uid": uids[f"{number:07d}"],
                "fault": p.fault,
                "how": p.how,
                "picture_of": self._of(p).uid(p.place),
                "captions_of": self._of(p).uid(p.said) if p.said >= 0 else "",
            }
            for number, p in enumerate(self.plan)
        ]
        return pa.Table.from_pylist(table, schema=SCHEMA)

    def _record(self, key: str, planted: Planted) -> Record:
        split, seed = self._of(planted), self.settings.seed
        picture, uid = split.record(planted.place).first("image"), split.uid(planted.place)
        assert picture is not None
        data, format = picture.data, picture.format
        if planted.said < 0:
            return Record.pair(key, data, format, (boilerplate(seed, uid)[0],), None, {"split": "train"})
        captions, weights = self._texts(split, planted.said)
        if planted.how == "equal":  # a record that is equal to another in all would be no other to `pack`
            captions, weights = _other_words(captions), None
        elif planted.fault in ("near_copy", "leaked"):
            data, format, _ = saved_anew(data, seed, uid)
        return Record.pair(key, data, format, captions, weights, {"split": "train"})

    def _of(self, planted: Planted) -> Split:
        return self._split if planted.fault != "leaked" else self._tests

    def _texts(self, split: Split, place: int) -> tuple[tuple[str, ...], tuple[float, ...] | None]:
        """The captions and weights of a record, without what many share."""
        captions, weights = split.texts(place)
        own = [i for i, text in enumerate(captions) if text.casefold() not in self._shared]
        kept = None if weights is None else tuple(weights[i] for i in own)
        return tuple(captions[i] for i in own), kept if kept and sum(kept) > 0 else None

    def _distinct(self) -> list[list[int]]:
        """Of the tests, the places of pictures that look like none before them; of these, and of the split, those with
        captions of their own, the tests coming first.

        A test picture without a caption of its own cannot leak, but nothing of the pool may look like it either:
        `decontaminate` would be right to drop that. Raises ConfigError where the split has none.
        """
        splits = (self._tests, self._split)
        shown = [[p for p in range(len(s)) if s.image_size(p) != (0, 0)] for s in splits]
        pairs = [[p for p in places if self._texts(s, p)[0]] for s, places in zip(splits, shown, strict=True)]
        sketches = [read_sketches(*of)[0] for of in ((self._tests, shown[0]), (self._split, pairs[1]))]
        tests, ours = sketches
        both = Sketches(
            tests.places + ours.places,
            tests.digests + ours.digests,
            torch.cat([tests.bits, ours.bits]),
            torch.cat([tests.miniatures, ours.miniatures]),
        )
        again = like_an_earlier(both)
        parts = np.split(again, [len(sketches[0].places)])
        kept = [np.array(s.places, int)[~gone].tolist() for s, gone in zip(sketches, parts, strict=True)]
        kept.insert(1, sorted(set(kept[0]) & set(pairs[0])))
        if not kept[2]:
            raise ConfigError(
                f"a pool must be made of records with a picture and a caption of their own; {self._split.name} of "
                f"{self._base} holds none. Give other data, or a larger most_shared."
            )
        return kept

    def _planned(self, places: list[int], tests: list[int]) -> list[Planted]:
        """All records, in the pool's order."""
        c, split = self.settings, self._split
        size = len(places) / (1 - c.duplicates - c.leaked)
        wanted = {n: round(size * getattr(c, n)) for n in ("mismatched", "boilerplate", "duplicates", "leaked")}
        order = self._drawn(split, places, "fault")
        wrong, rest = order[: wanted["mismatched"]], order[wanted["mismatched"] :]
        empty, clean = rest[: wanted["boilerplate"]], rest[wanted["boilerplate"] :]
        _check(c, wanted, len(order), len(clean), len(tests))
        plan = [Planted(c.split, p, CLEAN, "", p) for p in clean]
        donors = others_words([self._texts(split, p)[0] for p in wrong])
        plan += [Planted(c.split, p, "mismatched", "", wrong[d]) for p, d in zip(wrong, donors, strict=True)]
        plan += [Planted(c.split, p, "boilerplate", boilerplate(c.seed, split.uid(p))[1], -1) for p in empty]
        for number, place in enumerate(self._drawn(split, clean, "copy")[: wanted["duplicates"]]):
            plan.append(self._copy(c.split, place, "near_copy" if number % 2 else "exact_copy", number % 2 == 0))
        for number, place in enumerate(self._drawn(self._tests, tests, "leak")[: wanted["leaked"]]):
            plan.append(self._copy(c.test, place, "leaked", number % 2 == 0))
        return sorted(plan, key=lambda p: fold(c.seed, "order", p.fault, self._of(p).uid(p.place)))

    def _copy(self, name: str, place: int, fault: str, equal: bool) -> Planted:
        """A copy of a record; the way is known once it has been made."""
        planted = Planted(name, place, fault, "equal", place)
        if equal:
            return planted
        split = self._of(planted)
        return planted._replace(how=saved_anew(split.image_bytes(place), self.settings.seed, split.uid(place))[2])

    def _drawn(self, split: Split, places: Sequence[int], what: str) -> list[int]:
        """Places in the order of a hash of their uids."""
        return sorted(places, key=lambda p: fold(self.settings.seed, "planted", what, split.uid(p)))


def build_pool(base: str | Path, out: str | Path, config: PlantedPoolConfig, jobs: int = 0) -> Path:
    """Pack the pool into the folder `out`, the truth beside it (``truth.parquet``), unless it is there; returns `out`.

    Raises ConfigError for shares that the dataset cannot give, DataError where a record of it cannot be packed again.
    """
    out = Path(out)
    if (out / TRUTH).is_file():
        say(f"{out}: the pool is there already")
        return out
    source = PlantedPool(config, base)
    report = pack(source, out, PackConfig(val=0, records_per_shard=1000, jobs=jobs, overwrite=True))
    if report.rejected:
        raise DataError(
            f"every record of {base} must be one that can be packed again; {report.rejected:,} are not "
            f"({', '.join(report.reasons)}). They are named in {out / 'rejected.parquet'}: mend or leave them out."
        )
    about = {"left_out": source.left_out, "records": len(source.plan), "tests": report.splits["test"]}
    write_json(out / ABOUT, about)
    beside = out / f".{TRUTH}.writing"
    pq.write_table(source.truth(out), beside, compression="zstd")
    beside.replace(out / TRUTH)
    return out


def read_truth(pool: str | Path) -> dict[str, dict[str, str]]:
    """By uid, in the pool's order: a row of the truth."""
    return {row["uid"]: row for row in pq.read_table(Path(pool) / TRUTH).to_pylist()}


def others_words(captions: Sequence[Sequence[str]]) -> list[int]:
    """Of each of n records another one, each once, whose captions have none in common with its own (in lower case).

    The next one; where that one says the same, two records swap. Raises ConfigError where there is no such order.
    """
    said, n = [frozenset(t.casefold() for t in c) for c in captions], len(captions)
    found = [(i + 1) % n for i in range(n)]
    for i in range(n):
        if said[i].isdisjoint(said[found[i]]):
            continue
        for step in range(1, n):
            j = (i + step) % n
            if said[i].isdisjoint(said[found[j]]) and said[j].isdisjoint(said[found[i]]):
                found[i], found[j] = found[j], found[i]
                break
        else:
            raise ConfigError(
                f"mismatched captions must be another's, and not equal; got {n:,} records that say too much the same "
                f"({captions[i][0]!r}). Plant fewer, or take data with more different captions."
            )
    return found


def _check(c: PlantedPoolConfig, wanted: dict[str, int], records: int, clean: int, tests: int) -> None:
    if clean < max(1, wanted["duplicates"]) or records < wanted["mismatched"] + wanted["boilerplate"]:
        raise ConfigError(
            f"shares of faults must leave a clean record for each copy; got mismatched={c.mismatched}, boilerplate="
            f"{c.boilerplate}, duplicates={c.duplicates}: of {records:,} records {clean:,} stay clean, and "
            f"{wanted['duplicates']:,} copies are wanted. Lower one of them."
        )
    if tests < wanted["leaked"]:
        raise ConfigError(
            f"leaked must be a share that the test pictures can fill; got {c.leaked}, which is {wanted['leaked']:,}, "
            f"and {tests:,} of {c.test} look like no other. Lower it, or give data with more tests."
        )


def _shared_captions(splits: Sequence[Split], most: int) -> frozenset[str]:
    """Captions, in lower case, that more than `most` records have."""
    counts: Counter[str] = Counter()
    for split in splits if most else ():
        for place in range(len(split)):
            counts.update({text.casefold() for text in split.captions(place)})
    return frozenset(text for text, count in counts.items() if count > most)


def _other_words(captions: tuple[str, ...]) -> tuple[str, ...]:
    """The same alternatives, the second one first; of a single one, in other words."""
    return (*captions[1:], captions[0]) if len(captions) > 1 else (f"{captions[0]}, a picture",)
