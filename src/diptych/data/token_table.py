"""Every text of a split as token ids, computed once: flat arrays on disk that training maps into memory.

A table lies in ``tokens-<tokenizer>/`` beside the split's tars, or in the cache folder where that cannot be written to:

    ids.bin         uint16 or uint32, the ids of all rows one after another, specials included
    ends.bin        (m + 1) int64, where each row's ids end;   first.bin  (n + 1) int64, where each record's rows begin
    text_ids.bin    (m) int64, `text_id` of each row;          truncated.bin  (m) uint8, whether it was cut
    steps.bin       (m) float64, running sums of each record's weights, 0 where it has none
    silent.bin      (ids) uint8, 1 where a token bears no loss that would in a caption
    more.bin        (n) int32, how many images more than one each record holds, -1 for none
    place_of.bin    (m) int64, where in places.bin the row's images are told, counted from 1; 0: as in a pair
    places.bin      int32, for each such row the number of its images and their places
    about.json      written last: counts, and hashes of the tokenizer and of the records that they were made from

A row is what `passage.compose` makes of one alternative. Of the files from steps.bin on, those that would hold zeros
alone are empty: a table of pairs holds nothing that pairs do not need.

It is written a chunk of records at a time, so that a billion captions need no memory, and renamed when it is whole.
"""

import json
import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int64
from numpy import ndarray

from diptych.core.errors import DataError, DiptychError, ShardError
from diptych.core.files import cache_dir, folder_beside, write_json
from diptych.core.progress import say, track
from diptych.data.captions import Captions, Texts, no_caption, text_id
from diptych.data.dataset import Split
from diptych.data.passage import BEFORE_ALL, Places, Row, compose
from diptych.data.record_files import Pieces
from diptych.data.samples import CaptionChoice, caption_draws
from diptych.data.tokenize import Tokenizer
from diptych.data.workers import can_fork, cores, in_workers

FORMAT = 2
_ABOUT = "about.json"
_FIELDS = {"ends": "<i8", "first": "<i8", "text_ids": "<i8", "truncated": "u1"}
_RARE = {"steps": "<f8", "silent": "u1", "more": "<i4", "place_of": "<i8", "places": "<i4"}
_CHUNK = 4096
_MANY = 100_000
"""Records from which on worker processes tokenise."""
_CHUNK_TIMEOUT_S = 3600.0


class TokenTable:
    """A table, opened for reading. Forked workers share its memory; nobody writes to it."""

    def __init__(self, folder: Path) -> None:
        about = json.loads((folder / _ABOUT).read_text())
        self.folder, self.about = folder, about
        counts = {"ids": about["ids"], "ends": about["texts"] + 1, "first": about["records"] + 1}
        counts |= {"text_ids": about["texts"], "truncated": about["texts"], **about["rare"]}
        kinds = {"ids": str(np.dtype(about["dtype"])), **_FIELDS, **_RARE}
        arrays = {name: _mapped(folder / f"{name}.bin", kind, counts[name]) for name, kind in kinds.items()}
        self.ids, self.ends, self.first = arrays["ids"], arrays["ends"], arrays["first"]
        self.text_ids, self.truncated, self.steps = arrays["text_ids"], arrays["truncated"], arrays["steps"]
        self.silent, self.more = arrays["silent"], arrays["more"]
        self.place_of, self.places = arrays["place_of"], arrays["places"]

    def __getstate__(self) -> dict[str, Any]:  # a spawned worker maps the files itself
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])

    def choices(self, records: Int64[ndarray, " b"], keys: list[int]) -> Int64[ndarray, " b"]:
        """Which of its rows each record draws: as `samples.choose` does it, for all at once."""
        first, last = self.first[records], self.first[records + 1]
        counts, u = last - first, caption_draws(keys)
        which = (u * counts).astype(np.int64)
        if len(self.steps) and len(records):
            numbers = np.arange(int(counts.max()))
            steps = self.steps[np.minimum(first[:, None] + numbers, last[:, None] - 1)]  # (b, most captions)
            total = steps[:, -1]
            passed = ((steps <= (u * total)[:, None]) & (numbers < counts[:, None])).sum(1)
            which = np.where(total > 0, np.minimum(passed, counts - 1), which)
        return which

    def places_of(self, rows: Int64[ndarray, " b"]) -> list[Places] | None:
        """Where the images of some rows stand; None: one each, before the first token."""
        if not len(self.place_of) or not (starts := self.place_of[rows]).any():
            return None
        told = self.places
        return [tuple(told[s : s + told[s - 1]].tolist()) if s else BEFORE_ALL for s in starts.tolist()]


class CachedCaptions(Captions):
    """Texts out of a table: no JSON is read and nothing tokenised while training."""

    def __init__(self, table: TokenTable, split: Split, tokenizer: Tokenizer, how: CaptionChoice) -> None:
        self._table, self._split, self._how = table, split, how
        self._varied = len(table.more) > 0
        self._pad, config = tokenizer.pad_id, tokenizer.config
        self._width = config.context_length if config.pad_to == "context" else 0

    def check(self, record: int) -> int:
        """How many images a record holds. Raises DataError if it has no text that can be read."""
        first = self._table.first
        if first[record] == first[record + 1]:
            self._split.pieces(record)  # says what is wrong with it, if it is broken
            raise no_caption()
        return 1 + int(self._table.more[record]) if self._varied else 1

    def choose(self, records: Int64[ndarray, " b"], keys: list[int]) -> Int64[ndarray, " b"]:
        """Which of its alternatives each record says to the sample with that key."""
        return self._table.choices(records, keys) if self._how == "draw" else np.zeros(len(records), dtype=np.int64)

    def texts(self, records: Int64[ndarray, " b"], which: Int64[ndarray, " b"]) -> Texts:
        """Those alternatives, as token ids."""
        t = self._table
        rows = t.first[records] + which
        starts, lengths = t.ends[rows], t.ends[rows + 1] - t.ends[rows]
        width = self._width or int(lengths.max(initial=1))
        numbers = np.arange(width)
        real = numbers < lengths[:, None]
        at = (starts[:, None] + numbers)[real]
        tokens = np.full((len(rows), width), self._pad, dtype=np.int64)
        tokens[real] = t.ids[at]
        mask = None
        if len(t.silent) and (silent := t.silent[at] != 0).any():
            mask = np.zeros(real.shape, dtype=bool)
            mask[real] = ~silent
            mask[:, 0] = False
        return Texts(
            torch.from_numpy(tokens),
            torch.from_numpy(lengths),
            torch.from_numpy(t.text_ids[rows]),
            int(t.truncated[rows].sum()),
            None if mask is None else torch.from_numpy(mask),
            t.places_of(rows),
        )


def token_table(split: Split, tokenizer: Tokenizer) -> TokenTable | None:
    """The table of a split's captions, made now if it is not there yet; None where no disk has room for it (said)."""
    about = {"format": FORMAT, "tokenizer": tokenizer.fingerprint, "data": _data_hash(split)}
    try:
        some = f"-{split.selection_hash}" if split.selection_hash else ""
        folder = _home(split) / f"tokens-{tokenizer.fingerprint}{some}"
        if (found := _opened(folder, about)) is not None:
            return found
        with _alone(folder):
            if (found := _opened(folder, about)) is None:  # another process may have made it meanwhile
                _build(folder, split, tokenizer, about)
                found = TokenTable(folder)
        return found
    except OSError as error:
        say(f"captions are tokenised anew for each batch, since their table cannot be kept: {error}")
        return None


def _home(split: Split) -> Path:
    """Beside the tars; in the cache folder where that cannot be written to, or the tars lie in several folders."""
    beside = sorted({tar.parent for tar in split.shards})
    if len(beside) == 1 and os.access(beside[0], os.W_OK):
        return beside[0]
    name = "\0".join(str(folder.resolve()) for folder in beside)
    return cache_dir("tokens", blake2b(name.encode(), digest_size=8).hexdigest())


def _data_hash(split: Split) -> str:
    """A hash over what the captions come from: every record of every tar in order, and when the tars were written."""
    h = blake2b(digest_size=16)
    for tar in split.shards:
        try:
            stat = tar.stat()
        except OSError as error:
            raise ShardError(f"{tar} must be a tar that can be read; got {error.strerror}. Copy it again.") from None
        h.update(f"{tar.name}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    h.update(split.uids().tobytes())
    return h.hexdigest()


def _opened(folder: Path, about: dict[str, Any]) -> TokenTable | None:
    """The table in `folder`, if it is whole and was made from the same."""
    try:
        table = TokenTable(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return table if all(table.about[k] == v for k, v in about.items()) else None


def _mapped(path: Path, kind: str, count: int) -> ndarray:
    dtype = np.dtype(kind)
    if path.stat().st_size != count * dtype.itemsize:
        raise ValueError(f"{path} has the wrong size")
    if count == 0:
        return np.zeros(0, dtype)
    return np.asarray(np.memmap(path, dtype=dtype, mode="r", shape=(count,)))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Only one process of this machine is inside, where the system can say so; the others wait."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(folder.with_name(f".{folder.name}.lock"), "w") as lock:
        with suppress(OSError):  # a disk that knows no locks: the work is done twice, and comes out the same
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(folder: Path, split: Split, tokenizer: Tokenizer, about: dict[str, Any]) -> None:
    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
    with folder_beside(folder) as tmp:
        counts = _write(tmp, _chunks(split, tokenizer), len(split), dtype)
        write_json(tmp / _ABOUT, {**about, **counts, "dtype": dtype.str})
        os.chmod(tmp, 0o755)
        shutil.rmtree(folder, ignore_errors=True)  # made from other records; who still has it mapped keeps it
        try:
            os.rename(tmp, folder)
        except OSError:
            if _opened(folder, about) is None:  # else a machine that shares this disk was quicker
                raise


class _Chunk(NamedTuple):
    """Some records' rows, as the files hold them; `rare` holds what is not zeros alone."""

    ids: ndarray
    lengths: ndarray
    counts: ndarray
    text_ids: ndarray
    truncated: Bool[ndarray, " m"]
    rare: dict[str, ndarray]


def _write(folder: Path, chunks: Generator[_Chunk, None, None], records: int, dtype: np.dtype[Any]) -> dict[str, Any]:
    """Append chunks to the files; what about.json says of them."""
    texts = ids = done = places = 0
    rare = set[str]()
    files = {n: open(folder / f"{n}.bin", "wb") for n in ("ids", *_FIELDS, *_RARE)}  # noqa: SIM115 - closed below
    try:
        for name in ("ends", "first"):
            files[name].write(np.zeros(1, "<i8").tobytes())
        with closing(chunks):
            for chunk in chunks:
                files["ids"].write(chunk.ids.astype(dtype).tobytes())
                files["ends"].write((ids + np.cumsum(chunk.lengths)).astype("<i8").tobytes())
                files["first"].write((texts + np.cumsum(chunk.counts)).astype("<i8").tobytes())
                files["text_ids"].write(chunk.text_ids.astype("<i8").tobytes())
                files["truncated"].write(chunk.truncated.astype("u1").tobytes())
                before = {"steps": texts, "silent": ids, "more": done, "place_of": texts, "places": places}
                for name, values in chunk.rare.items():
                    if name == "place_of":
                        values = values + places * (values > 0)
                    kind = np.dtype(_RARE[name])
                    files[name].seek(kind.itemsize * before[name])  # what was left out before reads as zeros
                    files[name].write(values.astype(kind).tobytes())
                    rare.add(name)
                places += len(chunk.rare.get("places", ()))
                texts, ids, done = texts + len(chunk.lengths), ids + len(chunk.ids), done + len(chunk.counts)
        ends = {"steps": texts, "silent": ids, "more": done, "place_of": texts, "places": places}
        held = {name: ends[name] if name in rare else 0 for name in _RARE}
        for name, count in held.items():
            files[name].truncate(np.dtype(_RARE[name]).itemsize * count)
    finally:
        for file in files.values():
            file.close()
    if done != records:
        raise DataError(f"a table of captions must hold {records:,} records; got {done:,}. Start again.")
    return {"records": records, "texts": texts, "ids": ids, "rare": held}


def _chunks(split: Split, tokenizer: Tokenizer) -> Generator[_Chunk, None, None]:
    """The texts of all records in order, tokenised by workers where there are many."""
    steps = [(low, min(low + _CHUNK, len(split))) for low in range(0, len(split), _CHUNK)]
    made = _Tokenised(split, tokenizer)
    label = f"tokenising the captions of {split.name}, once ({_CHUNK:,} records each)"
    if len(split) < _MANY or not can_fork() or cores() == 1:
        yield from (made.chunk(*step) for step in track(steps, label))
        return
    with closing(in_workers(made, iter(steps), cores(), 2, _CHUNK_TIMEOUT_S)) as results:
        for result in track(results, label, total=len(steps)):
            if isinstance(result, DiptychError):
                raise result
            yield result


class _Tokenised:
    """Item (low, high) is the chunk of those records."""

    def __init__(self, split: Split, tokenizer: Tokenizer) -> None:
        self._split, self._tokenizer = split, tokenizer.replaced()  # with counters of its own

    def __getitem__(self, step: tuple[int, int]) -> "_Chunk | DiptychError":
        try:
            return self.chunk(*step)
        except DiptychError as error:  # as a value, since torch would wrap it in the text of a traceback
            return error

    def chunk(self, low: int, high: int) -> _Chunk:
        records = [self._pieces(record) for record in range(low, high)]
        rows = compose([(p, which) for p in records for which in range(p.alternatives)], self._tokenizer)
        return _Chunk(
            np.array([i for row in rows for i in row.ids], dtype=np.int64),
            np.array([len(row.ids) for row in rows], dtype=np.int64),
            np.array([p.alternatives for p in records], dtype=np.int64),
            np.array([text_id(row) for row in rows], dtype=np.int64),
            np.array([row.truncated for row in rows], dtype=bool),
            _rare(records, rows),
        )

    def _pieces(self, record: int) -> Pieces:
        try:
            return self._split.pieces(record)
        except ShardError:
            raise
        except DataError:  # a broken record says nothing, and is passed over when its turn comes
            return Pieces((), BEFORE_ALL)


def _rare(records: list[Pieces], rows: list[Row]) -> dict[str, ndarray]:
    """What only some records need, as far as any of these does."""
    silent = list[bool]()
    if any(row.loss is not None for row in rows):
        for row in rows:
            silent += [False] * len(row.ids) if row.loss is None else [False, *(not x for x in row.loss[1:])]
    place_of, places = [0] * len(rows), list[int]()
    for number, row in enumerate(rows):
        if row.places != BEFORE_ALL:
            place_of[number] = len(places) + 1
            places += [len(row.places), *row.places]
    found: dict[str, list[Any]] = {"steps": [step for p in records for step in _steps(p)], "silent": silent}
    found |= {"more": [len(p.images) - 1 for p in records], "place_of": place_of}
    return {n: np.array(v) for n, v in found.items() if any(v)} | ({"places": np.array(places)} if places else {})


def _steps(pieces: Pieces) -> list[float]:
    weights = pieces.weights
    if weights is None or not sum(weights) > 0:
        return [0.0] * pieces.alternatives
    return list(accumulate(max(w, 0.0) for w in weights))
