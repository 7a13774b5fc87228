"""A packed dataset folder, opened for reading: random access to every record, shared by forked workers."""

import json
import os
from collections import OrderedDict
from copy import copy
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from diptych.core.errors import DataError, ShardError
from diptych.core.progress import say
from diptych.core.record import Record
from diptych.data.record_files import Pieces, sidecar_pieces, sidecar_texts
from diptych.data.selection import Selection
from diptych.data.shard_index import Index, index_path
from diptych.data.shards import ShardReader, index_tar
from diptych.data.tokenize import Tokenizer

FORMAT = 1
MAX_OPEN = 128
"""Tars mapped at once in a process: a map holds a file descriptor, and thousands of shards would use them up."""


class Split:
    """The records of one split in their packed order. Holds numpy arrays only, so that forked workers share them."""

    def __init__(self, name: str, tars: list[Path], sizes: list[int] | None = None) -> None:
        counts = self._hold(name, [ShardReader(tar) for tar in tars])
        if sizes is not None and counts != sizes:
            wrong = next(i for i, (a, b) in enumerate(zip(counts, sizes, strict=True)) if a != b)
            raise ShardError(
                f"{tars[wrong]} must hold {sizes[wrong]:,} records, as dataset.json says; got {counts[wrong]:,}. "
                "Its index belongs to another tar: pack the dataset again."
            )

    def _hold(self, name: str, readers: list[ShardReader]) -> list[int]:
        """Be the records of those readers; how many each has."""
        self.name, self._readers = name, readers
        self._chosen: Int64[np.ndarray, " n"] | None = None
        counts = [len(r) for r in readers]
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
        self._open: OrderedDict[int, None] = OrderedDict()
        return counts

    def selected(self, selection: Selection) -> "Split":
        """The records that a selection holds, in the same order, of the same tars: nothing is copied.

        Raises DataError where it holds none of them.
        """
        chosen = np.flatnonzero(selection.holds(self.uids()))
        if not len(chosen):
            raise DataError(
                f"a selection must hold records of {self.name}; got {len(selection):,} uids, of which none is here. It "
                "belongs to another dataset."
            )
        made = copy(self)
        made._chosen = chosen if self._chosen is None else self._chosen[chosen]
        made._open = OrderedDict()
        return made

    @property
    def selection_hash(self) -> str:
        """16 hex digits that tell which records of its tars were selected; "" where all are."""
        return "" if self._chosen is None else blake2b(self._chosen.tobytes(), digest_size=8).hexdigest()

    @classmethod
    def from_tars(cls, name: str, tars: list[str | os.PathLike[str]]) -> "Split":
        """Foreign WebDataset tars as they are; missing indexes are written beside them first."""
        paths = [Path(t) for t in tars]
        for path in paths:
            if not index_path(path).exists():
                index_tar(path)
        return cls(name, paths)

    def __len__(self) -> int:
        return int(self._starts[-1]) if self._chosen is None else len(self._chosen)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    @property
    def shards(self) -> list[Path]:
        """The tars, in order."""
        return [r.path for r in self._readers]

    def shard_of(self, i: int) -> Path:
        """The tar that holds record i."""
        return self._readers[self._place(i)[0]].path

    def uid(self, i: int) -> str:
        """The content hash of record i, 32 hex digits."""
        index, row = self._index(i)
        return index.uid[row].tobytes().hex()

    def key(self, i: int) -> str:
        """The member key of record i (the source's own key is `record(i).key`)."""
        index, row = self._index(i)
        return index.key(row)

    def image_id(self, i: int) -> int:
        """A signed 64-bit hash of the bytes of record i's image: equal content, equal id."""
        index, row = self._index(i)
        return int(index.image_id[row])

    def image_ids(self, records: Int64[np.ndarray, " b"] | None = None) -> Int64[np.ndarray, " n"]:
        """`image_id` of every record, or of some."""
        if records is None:
            return self._of_chosen([r.index.image_id for r in self._readers], np.zeros(0, np.int64))
        records = records if self._chosen is None else self._chosen[records]
        shards = np.searchsorted(self._starts, records, side="right") - 1
        found = np.empty(len(records), dtype=np.int64)
        for shard in np.unique(shards):
            mine = shards == shard
            found[mine] = self._readers[shard].index.image_id[records[mine] - self._starts[shard]]
        return found

    def uids(self) -> UInt8[np.ndarray, "n 16"]:
        """`uid` of every record, as bytes."""
        return self._of_chosen([r.index.uid for r in self._readers], np.zeros((0, 16), np.uint8))

    def image_size(self, i: int) -> tuple[int, int]:
        """(width, height) in pixels of record i's image, upright, without decoding it; (0, 0) if there is none."""
        reader, row = self._reader(i, touch=False)
        member = reader.image_member(row)
        return (0, 0) if member is None else (int(reader.index.width[member]), int(reader.index.height[member]))

    def record(self, i: int) -> Record:
        """Record i."""
        reader, row = self._reader(i)
        return reader.record(row)

    def captions(self, i: int) -> tuple[str, ...]:
        """The alternatives of record i's first text; () if it has none."""
        return self.texts(i)[0]

    def texts(self, i: int) -> tuple[tuple[str, ...], tuple[float, ...] | None]:
        """(captions, weights) of record i, read together; the image is not touched."""
        reader, row = self._reader(i)
        captions, weights, _ = sidecar_texts(*reader.sidecar(row))
        return captions, weights

    def pieces(self, i: int) -> Pieces:
        """What record i says and where its images stand in it; the images are not touched."""
        reader, row = self._reader(i)
        return sidecar_pieces(*reader.sidecar(row), f"{reader.path}#{reader.index.key(row)}")

    def meta(self, i: int) -> dict[str, Any]:
        """Whatever else the source knew about record i."""
        reader, row = self._reader(i)
        return sidecar_texts(*reader.sidecar(row))[2]

    def image_bytes(self, i: int, number: int = 0) -> bytes:
        """The encoded bytes of record i's image (of several, the one of that number). Raises DataError if it has
        none."""
        reader, row = self._reader(i)
        found = reader.image(row, number)
        if found is None:
            which = "an image" if number == 0 else f"an image of number {number}"
            raise DataError(f"record {i} of {self.name} ({self.key(i)}) must hold {which}; it holds none.")
        return found[1]

    def images_of(self, i: int) -> int:
        """How many images record i holds; 1 for one that should hold an image and does not."""
        reader, row = self._reader(i, touch=False)
        return 1 if reader.image_member(row, 1) is None else len(self.pieces(i).images)

    def image_counts(self) -> Int64[np.ndarray, " n"]:
        """How many images lie in the shards for each record."""
        return self._of_chosen([r.image_counts() for r in self._readers], np.zeros(0, np.int64))

    @property
    def parts(self) -> "tuple[tuple[float, int, int], ...]":
        """(weight, first record, end) of the datasets that this is mixed of: one, unless it is a mixture."""
        return ((1.0, 0, len(self)),)

    def _of_chosen(self, parts: list[np.ndarray], none: np.ndarray) -> np.ndarray:
        """What the tars hold one after another, of the chosen records."""
        whole = np.concatenate(parts) if parts else none
        return whole if self._chosen is None else whole[self._chosen]

    def _place(self, i: int) -> tuple[int, int]:
        if not 0 <= i < len(self):
            raise IndexError(f"a record of {self.name} must be in [0, {len(self)}); got {i}")
        i = i if self._chosen is None else int(self._chosen[i])
        shard = int(np.searchsorted(self._starts, i, side="right")) - 1
        return shard, i - int(self._starts[shard])

    def _index(self, i: int) -> tuple[Index, int]:
        shard, row = self._place(i)
        return self._readers[shard].index, row

    def _reader(self, i: int, touch: bool = True) -> tuple[ShardReader, int]:
        shard, row = self._place(i)
        reader = self._readers[shard]
        if touch and len(self._readers) > MAX_OPEN:
            self._open[shard] = None
            self._open.move_to_end(shard)
            if len(self._open) > MAX_OPEN:
                self._readers[self._open.popitem(last=False)[0]].close()
        return reader, row


class Dataset:
    """A folder that `diptych pack` wrote: its splits, its tokenizer, what it says about itself (`info`)."""

    def __init__(self, path: Path, info: dict[str, Any], splits: dict[str, Split]) -> None:
        self.path, self.info, self.splits = path, info, splits

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Dataset":
        """The dataset in a folder. Raises DataError if it is not one, ShardError if it is damaged."""
        path = Path(path)
        if not path.is_dir():
            raise DataError(f"a dataset must be a folder that `diptych pack` wrote; got {path}, which is no folder.")
        try:
            info = json.loads((path / "dataset.json").read_text(encoding="utf-8"))
            version, described = info["format"], {}
            if version == FORMAT:
                described = {name: _described(name, split) for name, split in info["splits"].items()}
                _ = info["fingerprint"], info["seen"], info["kept"], info["captions"]["texts"]
        except FileNotFoundError:
            raise DataError(
                f"{path} must be a packed dataset; it holds no dataset.json. Run `diptych pack {path} --out DIR` "
                "and use DIR."
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise DataError(f"{path}/dataset.json must be what diptych wrote; got {error!r}. Pack it again.") from None
        if version != FORMAT:
            raise DataError(
                f"{path} must be a dataset of format {FORMAT}; got {version}. Use the diptych that wrote it, "
                "or pack it again."
            )
        splits = {}
        for name, (shards, records) in described.items():
            splits[name] = Split(name, [path / name / tar for tar, _ in shards], [n for _, n in shards])
            if len(splits[name]) != records:
                raise ShardError(
                    f"{path}/{name} must hold {records:,} records; got {len(splits[name]):,}. Pack it again."
                )
        return cls(path, info, splits)

    def split(self, name: str) -> Split:
        """The split called `name`. Raises DataError that says which there are."""
        if name not in self.splits:
            raise DataError(
                f"a split of {self.path} must be one of {', '.join(self.splits)}; got {name!r}. "
                "Pack with --val to hold some out."
            )
        return self.splits[name]

    def held_out(self, name: str = "") -> str:
        """The name of the split to judge on: `name` if given, else val, else test, else train (and that is said)."""
        found = name or next((n for n in ("val", "test") if n in self.splits), "train")
        if not name and found == "train":
            say(f"{self.path} holds nothing out: judging on what was trained on. Pack with --val to hold some out.")
        return found

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that was trained when the dataset was packed."""
        if not (self.path / "tokenizer.json").exists():
            raise DataError(
                f"{self.path} must hold a tokenizer.json; it holds none, since no record had a caption. "
                "Pack with captions, or give the model a tokenizer."
            )
        return Tokenizer.load(self.path)

    @property
    def fingerprint(self) -> str:
        """32 hex digits over every record of every split in order: equal fingerprint, equal training data."""
        return str(self.info["fingerprint"])


def _described(name: str, split: Any) -> tuple[list[tuple[str, int]], int]:
    """([(tar, records)], records) of a split in dataset.json; a name that leads out of the folder is an error."""
    shards = [(str(shard["name"]), int(shard["records"])) for shard in split["shards"]]
    for part in (name, *(tar for tar, _ in shards)):
        if part != Path(part).name:
            raise ValueError(f"{part!r} is not the bare name of a file")
    return shards, int(split["records"])
