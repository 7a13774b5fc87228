"""The card of a set: what is in it, where it is from, what was dropped and why, as plain values for a page.

One pass over the columns (a few dozen bytes a record are kept), one over the table of a curation, and a sample of the
records whose meta and pictures are looked at: those with the smallest hash of their uid, so the same ones each time,
in whatever order a set was packed.
"""

import base64
import hashlib
import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from pydantic import Field

from diptych.core.config import Config
from diptych.core.errors import DataError
from diptych.core.progress import track
from diptych.data.card_clusters import cluster_captions, cluster_vectors
from diptych.data.card_origins import Origins
from diptych.data.dataset import Dataset
from diptych.data.decode import BadImage, decode_image, encode_jpeg, resize_long_side
from diptych.data.selection import Selection, as_pairs
from diptych.data.summary import distribution, summarise

Json = dict[str, Any]
BATCH, BINS = 8192, 40


class CardConfig(Config):
    """How much of a set its card looks at.

    examples  records shown of each reason, group and cluster
    metas     records whose meta is read (licences, origins, languages); 0: none
    clustered records that are put into `clusters` groups; 0: none
    vectors   by which vectors beside the dataset (DIR/vectors/NAME) that is done; "": by the words of captions
    side      the long side of the pictures, in pixels
    """

    examples: int = Field(default=6, ge=1)
    metas: int = Field(default=50_000, ge=0)
    clustered: int = Field(default=4_000, ge=0)
    clusters: int = Field(default=12, ge=2)
    vectors: str = ""
    side: int = Field(default=128, ge=16)


def describe(
    path: str | PathLike[str], curation: str | PathLike[str] | None = None, config: CardConfig | None = None
) -> Json:
    """JSON values that describe a packed dataset and, if given, what a curation (or a combination) of it chose:

    summary     of the whole dataset (data/summary.py: splits, images, captions, rejects with examples)
    chosen      {path, splits (of the pool), seen (records of these), kept, here (of this dataset), filters [{name,
                settings, reasons [{reason, count, examples}]}], examples (kept), words and short_side (whole, kept:
                distributions in the same bins), steps (of a combination)}, or None
    overlap     [{one, other, images, captions, examples}]: records of `other` whose image or first caption `one` has
    repeats     {images [{count, examples}], captions}: the images that most records share
    origins     {read, of, licences, collectors, hosts, opt_outs, languages, scripts, synthetic}
    clusters    [{words, count, share, kept (of those in the pool), examples}], or []

    An example is {split, key, uid, captions, width, height, jpeg (base64, "" where there is no picture)}.
    """
    config, dataset = config or CardConfig(), Dataset.open(path)
    reader = _Reader(dataset, config)
    chosen = _Chosen.read(Path(curation), dataset, config.examples) if curation is not None else None
    columns = _Columns(config)
    for batch in track(_batches(dataset), "card"):
        columns.add(batch, chosen)
    if chosen is not None and not columns.kept:
        raise DataError(
            f"a curation must be of the dataset that the card is of; {curation} holds none of the records of {path}. "
            "Name the dataset that was curated."
        )
    return {
        "path": str(dataset.path),
        "summary": summarise(dataset),
        "chosen": None if chosen is None else _described(chosen, columns, reader),
        "overlap": _overlaps(columns, reader),
        "repeats": _repeats(columns, reader),
        "origins": _origins(dataset, columns, reader),
        "clusters": _clusters(columns, reader, chosen, config),
    }


@dataclass(frozen=True, order=True)
class Mark:
    """A record to be looked at: its hash (smaller ones are looked at first) and its uid."""

    draw: int
    uid: str

    @classmethod
    def of(cls, uid: str) -> "Mark":
        """Of a uid as 32 hex digits."""
        return cls(int.from_bytes(hashlib.blake2b(uid.encode(), digest_size=8, key=b"card").digest(), "big"), uid)


class Fewest:
    """The `most` marks of the smallest draws of all that were given."""

    def __init__(self, most: int) -> None:
        self.most, self._heap = most, list[tuple[int, str]]()

    def add(self, mark: Mark) -> None:
        """Give one."""
        item = (-mark.draw, mark.uid)
        if len(self._heap) < self.most:
            heapq.heappush(self._heap, item)
        elif self.most and item > self._heap[0]:
            heapq.heapreplace(self._heap, item)

    def uids(self) -> list[str]:
        """Their uids, the smallest draw first."""
        return [uid for _, uid in sorted(self._heap, reverse=True)]


@dataclass
class _Chosen:
    """What a curation's folder says."""

    path: Path
    selection: Selection
    about: Json
    combined: bool
    dropped: dict[tuple[int, str], Fewest] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, dataset: Dataset, examples: int) -> "_Chosen":
        selection, combined = Selection.load(path), not (path / "curation.json").is_file()
        about = path / ("combination.json" if combined else "curation.json")
        found = cls(path, selection, json.loads(about.read_text()) if about.is_file() else {}, combined)
        if not combined:
            for batch in pq.ParquetFile(path / "table.parquet").iter_batches(
                BATCH, columns=["uid", "filter", "reason"]
            ):
                rows = batch.to_pydict()
                for uid, number, reason in zip(rows["uid"], rows["filter"], rows["reason"], strict=True):
                    if number >= 0:
                        found.dropped.setdefault((number, reason), Fewest(examples)).add(Mark.of(uid))
        return found


class _Columns:
    """What one pass over the columns keeps: arrays of numbers, and a few marks."""

    def __init__(self, config: CardConfig) -> None:
        self.images: dict[str, list[np.ndarray]] = defaultdict(list)
        self.texts: dict[str, list[np.ndarray]] = defaultdict(list)
        self.places: dict[str, int] = {}
        self.words: dict[str, list[np.ndarray]] = defaultdict(list)
        self.sides: dict[str, list[np.ndarray]] = defaultdict(list)
        self.stays: dict[str, list[np.ndarray]] = defaultdict(list)
        self.kept = 0
        self.shown, self.metas = Fewest(2 * config.examples), Fewest(config.metas)
        self.clustered = Fewest(config.clustered)

    def add(self, batch: Json, chosen: _Chosen | None) -> None:
        n = len(batch["uid"])
        first = [c[0] if c else "" for c in batch["captions"]]
        words = np.array([len(t.split()) for t in first], dtype=np.int32)
        sides = np.minimum(batch["width"], batch["height"]).astype(np.int32)
        texts = np.array([_hash(t) if t else 0 for t in first], dtype=np.int64)
        raw = np.frombuffer(bytes.fromhex("".join(batch["uid"])), np.uint8).reshape(-1, 16)
        kept = np.ones(n, dtype=bool) if chosen is None else chosen.selection.holds(raw)
        self.kept += int(kept.sum())
        splits, images = np.array(batch["split"]), np.array(batch["image_id"], dtype=np.int64)
        pictured = np.array(batch["width"]) > 0
        for split in np.unique(splits).tolist():
            mine = splits == split
            self.words[split].append(words[mine])
            self.sides[split].append(sides[mine])
            self.stays[split].append(kept[mine])
            self.images[split].append(images[mine & pictured])
            self.texts[split].append(texts[mine & (texts != 0)])
        for uid, stays in zip(batch["uid"], kept.tolist(), strict=True):
            mark = Mark.of(uid)
            self.metas.add(mark)
            self.clustered.add(mark)
            if stays:
                self.shown.add(mark)

    def of(self, parts: dict[str, list[np.ndarray]], *splits: str) -> np.ndarray:
        """One column of some splits."""
        return np.concatenate([np.zeros(0, np.int64), *(part for split in splits for part in parts[split])])

    def pool(self, chosen: _Chosen) -> list[str]:
        """The splits that were chosen from: as the curation says, else those of which something was."""
        said = chosen.about.get("curation", {}).get("splits")
        return list(said) if said else [s for s, parts in self.stays.items() if any(p.any() for p in parts)]

    def spreads(self, parts: dict[str, list[np.ndarray]], splits: list[str]) -> dict[str, Json | None]:
        """The distribution of one column over the whole pool and over what stays, in the same bins."""
        whole, stays = self.of(parts, *splits), self.of(self.stays, *splits).astype(bool)
        found: dict[str, Json | None] = {"whole": distribution(whole), "kept": distribution(whole[stays])}
        low, high = (int(whole.min()), int(whole.max())) if len(whole) else (0, 0)
        edges = np.arange(low, high + 2, 1 + (high - low) // BINS)  # of whole numbers, as the values are
        edges = edges if edges[-1] > high else np.append(edges, high + 1)
        for values, spread in ((whole, found["whole"]), (whole[stays], found["kept"])):
            if spread is not None:
                spread |= {"edges": edges.tolist(), "counts": np.histogram(values, edges)[0].tolist()}
        return found


class _Reader:
    """Looks records up by uid and shows them."""

    def __init__(self, dataset: Dataset, config: CardConfig) -> None:
        self.dataset, self.config = dataset, config
        self._sorted: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def places(self, uids: Iterable[str]) -> dict[str, tuple[str, int]]:
        """uid -> (split, place); those that are not there are left out."""
        wanted, found = list(uids), dict[str, tuple[str, int]]()
        if not wanted:
            return {}
        asked = as_pairs(np.frombuffer(bytes.fromhex("".join(wanted)), np.uint8).reshape(-1, 16))
        for name, split in self.dataset.splits.items():
            if name not in self._sorted:
                pairs = as_pairs(split.uids())
                order = np.argsort(pairs, order=("f0", "f1"))
                self._sorted[name] = (pairs[order], order)
            pairs, order = self._sorted[name]
            if not len(pairs):
                continue
            at = np.searchsorted(pairs, asked).clip(max=len(pairs) - 1)
            for i in np.flatnonzero(pairs[at] == asked).tolist():
                found.setdefault(wanted[i], (name, int(order[at[i]])))
        return found

    def show(self, uids: Iterable[str]) -> list[Json]:
        """The examples of some uids, in their order."""
        wanted = list(uids)
        places = self.places(wanted)
        return [self.example(uid, *places[uid]) for uid in wanted if uid in places]

    def show_places(self, split: str, places: Iterable[int]) -> list[Json]:
        """The examples of some places of a split."""
        return [self.example(self.dataset.split(split).uid(i), split, i) for i in places]

    def example(self, uid: str, split: str, place: int) -> Json:
        """One of them, with its picture."""
        records = self.dataset.split(split)
        width, height = records.image_size(place)
        jpeg = ""
        if width:
            try:
                pixels = decode_image(records.image_bytes(place), at_least=2 * self.config.side)
                jpeg = base64.b64encode(encode_jpeg(resize_long_side(pixels, self.config.side), 82)).decode()
            except BadImage:  # packed from elsewhere: shown as one without a picture
                jpeg = ""
        said = {"split": split, "key": records.key(place), "uid": uid, "captions": list(records.captions(place))[:4]}
        return {**said, "width": width, "height": height, "jpeg": jpeg}


def _batches(dataset: Dataset) -> Iterable[Json]:
    wanted = ["uid", "split", "captions", "width", "height", "image_id"]
    for batch in pq.ParquetFile(dataset.path / "records.parquet").iter_batches(BATCH, columns=wanted):
        yield batch.to_pydict()


def _described(chosen: _Chosen, columns: _Columns, reader: _Reader) -> Json:
    splits = columns.pool(chosen)
    found: Json = {
        "path": str(chosen.path),
        "splits": splits,
        "kept": len(chosen.selection),
        "here": columns.kept,
        "seen": len(columns.of(columns.words, *splits)),
        "examples": reader.show(columns.shown.uids()),
        "words": columns.spreads(columns.words, splits),
        "short_side": columns.spreads(columns.sides, splits),
        "filters": [],
        "steps": chosen.about.get("steps", []) if chosen.combined else [],
    }
    counts = Counter({(d["filter"], d["reason"]): d["count"] for d in chosen.about.get("dropped", [])})
    for number, settings in enumerate(chosen.about.get("curation", {}).get("filters", [])):
        reasons = [
            {"reason": r, "count": c, "examples": reader.show(chosen.dropped[n, r].uids())}
            for (n, r), c in counts.most_common()
            if n == number and (n, r) in chosen.dropped
        ]
        name = str(settings["kind"]).split(".")[-2]  # its file is its name
        own = {k: v for k, v in settings.items() if k != "kind"}
        found["filters"].append({"name": name, "settings": own, "reasons": reasons})
    return found


def _overlaps(columns: _Columns, reader: _Reader) -> list[Json]:
    """Of every pair of splits, how much of the smaller part of a set the other has too."""
    names = sorted(columns.images, key=lambda s: (s != "train", s))
    found = []
    for a, one in enumerate(names):
        for other in names[a + 1 :]:
            shared = np.isin(columns.of(columns.images, other), columns.of(columns.images, one))
            said = np.isin(columns.of(columns.texts, other), columns.of(columns.texts, one))
            places: list[int] = []
            if shared.any():
                ids = reader.dataset.split(other).image_ids()
                wanted = np.isin(ids, columns.of(columns.images, one))
                places = np.flatnonzero(wanted)[: reader.config.examples].tolist()
            found.append(
                {
                    **{"one": one, "other": other, "images": int(shared.sum()), "captions": int(said.sum())},
                    **{"of": len(shared), "examples": reader.show_places(other, places)},
                }
            )
    return found


def _repeats(columns: _Columns, reader: _Reader) -> list[Json]:
    """The images that most records share, with the records."""
    every = np.concatenate([columns.of(columns.images, s) for s in columns.images] or [np.zeros(0, np.int64)])
    ids, counts = np.unique(every, return_counts=True)
    order = np.lexsort((ids, -counts))[: reader.config.examples]
    found = []
    for image, count in zip(ids[order].tolist(), counts[order].tolist(), strict=True):
        if count > 1:
            examples: list[Json] = []
            for name, split in reader.dataset.splits.items():
                some = np.flatnonzero(split.image_ids() == image)[: reader.config.examples - len(examples)]
                examples += reader.show_places(name, some.tolist())
            found.append({"count": count, "examples": examples})
    return found


def _origins(dataset: Dataset, columns: _Columns, reader: _Reader) -> Json:
    uids = columns.metas.uids()
    origins, places = Origins(), reader.places(uids)
    for name, split in dataset.splits.items():
        mine = sorted(place for s, place in places.values() if s == name)  # in order: the tars are read once
        for place in mine:
            origins.add(split.meta(place), split.captions(place))
    return {"of": len(columns.of(columns.words, *columns.words)), **origins.counts()}


def _clusters(columns: _Columns, reader: _Reader, chosen: _Chosen | None, config: CardConfig) -> list[Json]:
    places = reader.places(columns.clustered.uids())
    uids = list(places)
    captions = [reader.dataset.split(s).captions(i) for s, i in places.values()]
    texts = [c[0] if c else "" for c in captions]
    if config.vectors:
        groups = cluster_vectors(reader.dataset.path, config.vectors, uids, texts, config.clusters)
    else:
        groups = cluster_captions(texts, config.clusters)
    raw = np.frombuffer(bytes.fromhex("".join(uids)), np.uint8).reshape(-1, 16)
    kept = np.ones(len(uids), dtype=bool) if chosen is None else chosen.selection.holds(raw)
    pool = set(reader.dataset.splits) if chosen is None else set(columns.pool(chosen))
    within = np.array([split in pool for split, _ in places.values()], dtype=bool)
    return [
        {
            "words": list(group.words),
            "count": len(group.members),
            "share": len(group.members) / max(len(uids), 1),
            "kept": None if chosen is None else _share(kept[list(group.members)], within[list(group.members)]),
            "examples": reader.show(uids[i] for i in group.members[: config.examples]),
        }
        for group in groups
    ]


def _share(kept: np.ndarray, within: np.ndarray) -> float:
    return float(kept[within].mean()) if within.any() else 0.0


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)
