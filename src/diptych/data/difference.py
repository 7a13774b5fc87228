"""What two sets have in common and what not: datasets, selections and curations, in any pairing.

Records are the same where their uids are, which are hashes of their content: a record whose captions were changed is
another one, and is recognised by its image.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Int32
from numpy import ndarray

from diptych.core.errors import DataError
from diptych.data.dataset import Dataset
from diptych.data.selection import PAIR, Selection, as_pairs

Json = dict[str, Any]
BATCH = 8192
ELSEWHERE = "not_in_its_pool"
"""The reason of records that a curation never saw."""


@dataclass
class Side:
    """One of two sets: what it is, and its records."""

    path: Path
    what: Literal["dataset", "selection", "curation"]
    selection: Selection
    dataset: Dataset | None = None


def side(path: str | PathLike[str]) -> Side:
    """The set at a path. Raises DataError where there is none."""
    path = Path(path)
    if (path / "dataset.json").is_file():
        dataset = Dataset.open(path)
        uids = [split.uids() for split in dataset.splits.values()]
        return Side(path, "dataset", Selection(np.concatenate(uids)), dataset)
    if not path.exists():
        raise DataError(f"a set must be a packed dataset, a selection or a curation; {path} is not there.")
    selection = Selection.load(path)
    return Side(path, "curation" if (path / "table.parquet").is_file() else "selection", selection)


def difference(one: str | PathLike[str], other: str | PathLike[str], examples: int = 5) -> Json:
    """JSON values:

    one, other         {path, what, records}
    both, only_one, only_other   records
    dropped_by_one     of a curation: {reason: how many of the records that only the other has}
    dropped_by_other   the same the other way round
    reasons_changed    of two curations: [{one, other, count}] of records that both drop, for different reasons
    captions           of two datasets: {changed: images of records that only one has, with other captions in the
                       other, examples [{key, one, other}]}
    splits_changed     of two datasets: [{one, other, count}] of records that both have, in different splits
    """
    a, b = side(one), side(other)
    only = (a.selection - b.selection, b.selection - a.selection)
    found: Json = {
        "one": {"path": str(a.path), "what": a.what, "records": len(a.selection)},
        "other": {"path": str(b.path), "what": b.what, "records": len(b.selection)},
        "both": len(a.selection & b.selection),
        "only_one": len(only[0]),
        "only_other": len(only[1]),
    }
    reasons = [_Reasons(s) if s.what == "curation" else None for s in (a, b)]
    if reasons[0] is not None:
        found["dropped_by_one"] = reasons[0].counts(only[1])
    if reasons[1] is not None:
        found["dropped_by_other"] = reasons[1].counts(only[0])
    if reasons[0] is not None and reasons[1] is not None:
        found["reasons_changed"] = _reasons_changed(reasons[0], reasons[1])
    if a.dataset is not None and b.dataset is not None:
        found["captions"] = _captions(a.dataset, b.dataset, only, examples)
        found["splits_changed"] = _splits_changed(a.dataset, b.dataset)
    return found


def told(found: Json) -> str:
    """The same for people."""
    lines = [f"{name}  {s['path']}: {s['what']}, {s['records']:,} records" for name, s in _named(found)]
    lines += [f"in both    {found['both']:,}", f"only in A  {found['only_one']:,}", *_why(found, "other", "B")]
    lines += [f"only in B  {found['only_other']:,}", *_why(found, "one", "A")]
    if changed := found.get("reasons_changed"):
        lines.append("dropped by both, for other reasons")
        lines += [f"    {c['count']:>9,} {c['one']} in A, {c['other']} in B" for c in changed]
    if captions := found.get("captions"):
        lines.append(f"captions changed  {captions['changed']:,}")
        lines += [f"    {e['key']}: {_short(e['one'])} -> {_short(e['other'])}" for e in captions["examples"]]
    if moved := found.get("splits_changed"):
        lines.append("in another split  " + ", ".join(f"{m['count']:,} {m['one']} -> {m['other']}" for m in moved))
    return "\n".join(lines)


class _Reasons:
    """Of every record of a curation's pool, the filter and the reason for which it went: 20 bytes each."""

    def __init__(self, side: Side) -> None:
        self.names = ["kept", ELSEWHERE]
        about = side.path / "curation.json"
        filters = json.loads(about.read_text())["curation"]["filters"] if about.is_file() else []
        called = [str(f["kind"]).split(".")[-2] for f in filters]
        known: dict[tuple[int, str], int] = {(-1, ""): 0}
        pairs, codes = [np.zeros(0, PAIR)], [np.zeros(0, np.int32)]
        for rows in _rows(side.path / "table.parquet", "uid", "filter", "reason"):
            pairs.append(_pairs(rows["uid"]))
            mine = []
            for number, reason in zip(rows["filter"], rows["reason"], strict=True):
                if (number, reason) not in known:
                    known[number, reason] = len(self.names)
                    self.names.append(f"{called[number]}: {reason}" if 0 <= number < len(called) else reason)
                mine.append(known[number, reason])
            codes.append(np.array(mine, dtype=np.int32))
        whole = np.concatenate(pairs)
        order = np.argsort(whole, order=("f0", "f1"))
        self.pairs, self.codes = whole[order], np.concatenate(codes)[order]

    def of(self, pairs: ndarray) -> Int32[ndarray, " n"]:
        """The numbers of the reasons of some records."""
        if not len(self.pairs):
            return np.ones(len(pairs), dtype=np.int32)
        at = np.searchsorted(self.pairs, pairs).clip(max=len(self.pairs) - 1)
        return np.where(self.pairs[at] == pairs, self.codes[at], 1).astype(np.int32)

    def counts(self, some: Selection) -> dict[str, int]:
        """How many of `some` went for which reason, the most common ones first."""
        counted = Counter(self.names[i] for i in self.of(some.pairs).tolist())
        return dict(sorted(counted.items(), key=lambda x: (-x[1], x[0])))


def _reasons_changed(a: _Reasons, b: _Reasons) -> list[Json]:
    here, there = a.codes, b.of(a.pairs)
    both = (here > 1) & (there > 1)
    counted = Counter((a.names[i], b.names[j]) for i, j in zip(here[both].tolist(), there[both].tolist(), strict=True))
    return _counted(Counter({pair: n for pair, n in counted.items() if pair[0] != pair[1]}))


def _splits_changed(a: Dataset, b: Dataset) -> list[Json]:
    counted = Counter[tuple[str, str]]()
    for one, here in a.splits.items():
        mine = Selection(here.uids())
        for other, there in b.splits.items():
            if one != other:
                counted[one, other] += int(mine.holds(there.uids()).sum())
    return _counted(counted)


def _captions(a: Dataset, b: Dataset, only: tuple[Selection, Selection], examples: int) -> Json:
    """Records of one side alone whose image a record of the other side alone has."""
    images = [_images(d, some) for d, some in zip((a, b), only, strict=True)]
    shared = np.intersect1d(images[0], images[1])
    counts = [np.bincount(np.searchsorted(shared, i[np.isin(i, shared)]), minlength=len(shared)) for i in images]
    wanted = set(sorted(shared.tolist(), key=_draw)[:examples])
    before, after = (_texts(d, some, wanted) for d, some in zip((a, b), only, strict=True))
    said = [
        {"key": before[i][0], "one": before[i][1], "other": after[i][1]}
        for i in sorted(wanted, key=_draw)
        if i in before and i in after
    ]
    return {"changed": int(np.minimum(counts[0], counts[1]).sum()) if len(shared) else 0, "examples": said}


def _images(dataset: Dataset, some: Selection) -> ndarray:
    """The image ids of the records that `some` holds and that have an image."""
    found = [np.zeros(0, np.int64)]
    for rows in _rows(dataset.path / "records.parquet", "uid", "image_id", "width"):
        mine = some.holds(_raw(rows["uid"])) & (np.array(rows["width"]) > 0)
        found.append(np.array(rows["image_id"], dtype=np.int64)[mine])
    return np.concatenate(found)


def _texts(dataset: Dataset, some: Selection, images: set[int]) -> dict[int, tuple[str, list[str]]]:
    """image id -> (key, captions) of the first record of it that `some` holds."""
    found: dict[int, tuple[str, list[str]]] = {}
    for rows in _rows(dataset.path / "records.parquet", "uid", "image_id", "key", "captions"):
        for uid, image, key, captions in zip(*rows.values(), strict=True):
            if image in images and image not in found and some.holds(_raw([uid]))[0]:
                found[image] = (key, captions)
    return found


def _rows(path: Path, *columns: str) -> Iterator[Json]:
    for batch in pq.ParquetFile(path).iter_batches(BATCH, columns=list(columns)):
        read = batch.to_pydict()
        yield {name: read[name] for name in columns}


def _raw(uids: list[str]) -> ndarray:
    return np.frombuffer(bytes.fromhex("".join(uids)), np.uint8).reshape(-1, 16)


def _pairs(uids: list[str]) -> ndarray:
    return as_pairs(_raw(uids))


def _draw(image: int) -> bytes:
    return hashlib.blake2b(str(image).encode(), digest_size=8, key=b"diff").digest()


def _counted(counts: Counter[tuple[str, str]]) -> list[Json]:
    ordered = sorted(counts.items(), key=lambda x: (-x[1], x[0]))
    return [{"one": a, "other": b, "count": n} for (a, b), n in ordered if n]


def _named(found: Json) -> list[tuple[str, Json]]:
    return [("A", found["one"]), ("B", found["other"])]


def _why(found: Json, which: str, name: str) -> list[str]:
    return [f"    {n:>9,} {name}: {reason}" for reason, n in found.get(f"dropped_by_{which}", {}).items()]


def _short(captions: list[str]) -> str:
    text = " | ".join(captions) or "(no caption)"
    return repr(text if len(text) <= 80 else text[:77] + "...")
