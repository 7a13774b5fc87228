"""From any source to a dataset folder: every record is kept or named in rejected.parquet, and nothing stops it.

Everything streams: what is held in memory is a few chunks of records, one shard's index, and 32 bytes a record to
know duplicates by.
"""

import errno
import hashlib
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from diptych.core.config import to_dict
from diptych.core.errors import ConfigError, DataError
from diptych.core.files import new_directory, write_json
from diptych.core.progress import say, track
from diptych.core.record import Record
from diptych.core.seeds import fold
from diptych.data.dataset import FORMAT
from diptych.data.face_detector import check_detector
from diptych.data.hash_set import HashSet
from diptych.data.judge import Kept, Limits
from diptych.data.judge_pool import judge_all
from diptych.data.parquet_rows import ParquetRows
from diptych.data.record_files import printable, synthetic_of
from diptych.data.shards import ShardWriter, image_id
from diptych.data.sources.source import SPLIT_NAMES, Reject, Source
from diptych.data.tokenize import Tokenizer

RECORDS = pa.schema(
    [
        ("uid", pa.string()),
        ("key", pa.string()),
        ("split", pa.string()),
        ("shard", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("format", pa.string()),
        ("captions", pa.list_(pa.string())),
        ("bytes", pa.int64()),
        ("image_id", pa.int64()),
        ("images", pa.int32()),
        ("further_texts", pa.list_(pa.string())),
        ("synthetic", pa.int32()),
    ]
)
"""A row a kept record. `captions` are the alternatives of its first text, the last `synthetic` of which a model wrote;
`further_texts` those of all that follow (answers, later turns, the rest of a page); width, height, format and image_id
are those of its first image."""
REJECTED = pa.schema(
    [
        ("key", pa.string()),
        ("where", pa.string()),
        ("reason", pa.string()),
        ("message", pa.string()),
        ("bytes", pa.int64()),
    ]
)


class PackConfig(Limits):
    """How a source becomes a dataset.

    `val` is the share of records held out, chosen by a hash of the image so that equal images never part; records
    whose meta names a split keep it. `tokenizer`: "train" (on the train captions, at most `tokenizer_captions` of
    them, evenly spread), "clip", "none", or the path of a tokenizer.json. `jobs` processes check images; 0: one a
    core.
    """

    val: Annotated[float, Field(ge=0, lt=1)] = 0.02
    seed: int = 0
    records_per_shard: Annotated[int, Field(ge=1)] = 10_000
    bytes_per_shard: Annotated[int, Field(ge=1)] = 1 << 30
    tokenizer: str = "train"
    vocab_size: Annotated[int, Field(ge=259)] = 8192
    context_length: Annotated[int, Field(ge=3)] = 77
    tokenizer_captions: Annotated[int, Field(ge=1)] = 2_000_000
    jobs: Annotated[int, Field(ge=0)] = 0
    images_only: bool = False
    overwrite: bool = False


@dataclass
class PackReport:
    """What a pack did: kept + rejected = seen. `str()` of it is for people."""

    out: Path
    seen: int = 0
    kept: int = 0
    rejected: int = 0
    splits: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        splits = ", ".join(f"{name} {n:,}" for name, n in self.splits.items())
        lines = [
            f"Packed {self.kept:,} of {self.seen:,} records into {self.out} ({splits}; {self.bytes / 1e6:,.1f} MB)."
        ]
        if self.notes:
            lines.append("Of these: " + ", ".join(f"{n:,} {what}" for what, n in self.notes.items()) + ".")
        if self.rejected:
            why = ", ".join(f"{n:,} {reason}" for reason, n in self.reasons.items())
            lines.append(f"Rejected {self.rejected:,}: {why}. Each is named in {self.out / 'rejected.parquet'}.")
        return "\n".join(lines)


def pack(source: Source, out: str | Path, config: PackConfig | None = None) -> PackReport:
    """Pack `source` into the folder `out`, which appears only once it is whole.

    Errors: ConfigError if `out` is something else than a dataset, or is one and `overwrite` is off; DataError if not
    one record could be kept, or the disk is full.
    """
    config = config or PackConfig()
    out = Path(out)
    _refuse(out, source, config)
    started = time.monotonic()
    source.max_bytes = config.max_bytes
    source.images_only = images_only = config.images_only or source.images_only
    given = _given_tokenizer(config)  # before a million records are read: its file may not be there
    if config.faces.blur == "detect":
        check_detector(config.faces.model)
    try:
        with new_directory(out) as folder:
            packer = _Packer(folder, source, config, given)
            verdicts = judge_all(_named(source.records()), config, images_only, config.jobs)
            try:
                packer.add_all(track(verdicts, "pack", source.count()))
                report = packer.finish(out)
            except DataError:
                packer.leave_reasons(out)
                raise
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DataError(f"{out} must have room on its disk; it is full. Free some, or pack with resize.") from None
        raise
    report.seconds = time.monotonic() - started
    return report


def _given_tokenizer(config: PackConfig) -> Tokenizer | None:
    if config.tokenizer in ("train", "none"):
        return None
    if config.tokenizer == "clip":
        return Tokenizer.clip(config.context_length)
    return Tokenizer.from_file(config.tokenizer, context_length=config.context_length)


def _refuse(out: Path, source: Source, config: PackConfig) -> None:
    if out.resolve() == Path.cwd() or os.path.ismount(out):
        raise ConfigError(
            f"the output must be a folder that can be replaced as a whole; got {out}, which is the current folder or a "
            f"mounted disk. Name one inside it: --out {out / 'dataset'}"
        )
    given = getattr(source.config, "path", None)
    if given is not None and Path(given).resolve() in out.resolve().parents:
        raise ConfigError(
            f"the output must lie outside the source, which would hold its own copy next time; got {out} in {given}. "
            "Name another --out."
        )
    if not out.exists():
        return
    if not out.is_dir() or (any(out.iterdir()) and not (out / "dataset.json").is_file()):
        raise ConfigError(
            f"the output must be a new folder or a dataset; got {out}, which holds something else. Name another --out."
        )
    if (out / "dataset.json").is_file() and not config.overwrite:
        raise ConfigError(
            f"the output must be new; {out} is a dataset already. Name another --out, or pass --overwrite."
        )
    inside = getattr(source.config, "path", None)
    if inside is not None and any(
        out.resolve() == p for p in (Path(inside).resolve(), *Path(inside).resolve().parents)
    ):
        raise ConfigError(f"the output must not hold the source; got {out} for {inside}. Name another --out.")


def _named(items: Iterator[Record | Reject]) -> Iterator[Record | Reject]:
    """The source's items; an error that it raises on purpose midway gets no traceback, any other names the source."""
    for item in items:
        if not isinstance(item, (Record, Reject)):
            raise DataError(f"a source must yield records and rejects; got a {type(item).__name__}. Mend the source.")
        yield item


class _Packer:
    """Writes verdicts down: shards, tables, counts."""

    def __init__(self, folder: Path, source: Source, config: PackConfig, tokenizer: Tokenizer | None = None) -> None:
        self.folder, self.source, self.config, self.given = folder, source, config, tokenizer
        self.writers: dict[str, ShardWriter] = {}
        self.shard_records: dict[str, Counter[str]] = {}
        self.digests: dict[str, Any] = {}
        self.records = ParquetRows(folder / "records.parquet", RECORDS)
        self.rejected = ParquetRows(folder / "rejected.parquet", REJECTED)
        self.uids, self.keys = HashSet(), HashSet()
        self.reasons, self.notes = Counter[str](), Counter[str]()
        self.seen = 0
        self.first_reject = ""
        self.texts = 0
        self.captions = {"records": 0, "texts": 0, "synthetic": 0, "characters": 0, "longest": 0}

    def add_all(self, verdicts: Iterator[Kept | Reject]) -> None:
        try:
            for verdict in verdicts:
                self.add(verdict)
        finally:
            self.close()

    def add(self, verdict: Kept | Reject) -> None:
        self.seen += 1
        if isinstance(verdict, Kept):
            verdict = self._place(verdict)
        if isinstance(verdict, Reject):
            self._reject(verdict)

    def _place(self, kept: Kept) -> Kept | Reject:
        """Store a record, unless it is there already or its split cannot be told."""
        record = kept.record
        size = sum(len(s.payload) for s in record.segments if isinstance(s.payload, bytes))
        declared = record.meta.get("split")
        if declared is not None and str(declared).lower() not in SPLIT_NAMES:
            message = f"a record's split must be one of {', '.join(SPLIT_NAMES)}; got {declared!r}. Rename it."
            return Reject(record.key, message, "unknown_split", size=size)
        if not self.uids.add(int(kept.uid[:16], 16)):
            message = "a record must be new; one with the same image and captions came before. Nothing needs doing."
            return Reject(record.key, message, "duplicate", size=size)
        if not self.keys.add(int.from_bytes(hashlib.blake2b(record.key.encode(), digest_size=8).digest(), "little")):
            message = f"a record's key must be its own; another is called {record.key!r} too. Rename one."
            return Reject(record.key, message, "duplicate_key", size=size)
        image = image_id(record)
        split = SPLIT_NAMES[str(declared).lower()] if declared is not None else self._split(image)
        writer = self._writer(split)
        shard = writer.add(record, kept.sizes, kept.uid)
        self.shard_records[split][shard] += 1
        self.digests[split].update(bytes.fromhex(kept.uid))
        self.notes.update(kept.notes)
        self._describe(kept, split, shard, size, image)
        return kept

    def _describe(self, kept: Kept, split: str, shard: str, size: int, image: int) -> None:
        text, picture = kept.record.first("text"), kept.record.first("image")
        texts = text.texts if text is not None else ()
        further = [t for s in kept.record.segments if s.modality == "text" and s is not text for t in s.texts]
        self.texts += len(texts) + len(further)
        width, height = kept.sizes[0] if kept.sizes else (0, 0)
        self.captions["records"] += bool(texts)
        self.captions["texts"] += len(texts)
        self.captions["synthetic"] += (written := synthetic_of(kept.record.meta, len(texts)))
        self.captions["characters"] += sum(map(len, texts))
        self.captions["longest"] = max(self.captions["longest"], *map(len, texts), 0)
        self.records.add(
            uid=kept.uid,
            key=kept.record.key,
            split=split,
            shard=shard,
            width=width,
            height=height,
            format=picture.format if picture is not None else "",
            captions=list(texts),
            bytes=size,
            image_id=image,
            images=len(kept.sizes),
            further_texts=further,
            synthetic=written,
        )

    def _split(self, image: int) -> str:
        draw = fold(self.config.seed, "split", image) / 2**63
        return "val" if draw < self.config.val else "train"

    def _writer(self, split: str) -> ShardWriter:
        if split not in self.writers:
            config = self.config
            self.writers[split] = ShardWriter(self.folder / split, config.records_per_shard, config.bytes_per_shard)
            self.shard_records[split] = Counter()
            self.digests[split] = hashlib.blake2b(digest_size=16)
        return self.writers[split]

    def _reject(self, reject: Reject) -> None:
        self.reasons[reject.reason] += 1
        where = reject.where or self.source.where(reject.key)
        self.first_reject = self.first_reject or f"{where}: {reject.message}"
        self.rejected.add(
            key=printable(reject.key),
            where=printable(where),
            reason=reject.reason,
            message=printable(reject.message),
            bytes=reject.size,
        )

    def close(self) -> None:
        """Finish every file."""
        for writer in self.writers.values():
            writer.close()
        self.records.close()
        self.rejected.close()

    def leave_reasons(self, out: Path) -> None:
        """Where nothing is kept there will be no folder: the table that names every reject then lies beside it."""
        if self.rejected.rows and not self.records.rows:
            beside = out.with_name(f"{out.name}.rejected.parquet")
            (self.folder / "rejected.parquet").replace(beside)
            say(f"Nothing was kept. Each of the {self.rejected.rows:,} rejected is named in {beside}.")

    def finish(self, out: Path) -> PackReport:
        """Train the tokenizer, write dataset.json, and say what was done."""
        kept = self.records.rows
        assert kept + self.rejected.rows == self.seen, "a record was neither kept nor rejected"
        if not kept:
            why = ", ".join(f"{n:,} {reason}" for reason, n in self.reasons.most_common())
            first = (
                f"of {self.seen:,} none could be kept ({why}). The first: {self.first_reject}" if self.seen else "none"
            )
            raise DataError(f"{self.source.name} must hold records; got {first.rstrip('.')}.")
        order = [s for s in ("train", "val", "test") if s in self.writers]
        tokenizer = self._tokenizer()
        if tokenizer is not None:
            tokenizer.save(self.folder)
        info = {
            "format": FORMAT,
            "splits": {name: self._split_info(name) for name in order},
            "seen": self.seen,
            "kept": kept,
            "rejected": dict(sorted(self.reasons.items())),
            "notes": dict(sorted(self.notes.items())),
            "captions": self.captions,
            "source": {"name": self.source.name, "config": to_dict(self.source.config)},
            "options": {k: v for k, v in to_dict(self.config).items() if k not in ("jobs", "overwrite")},
            "fingerprint": self._fingerprint(),
        }
        if tokenizer is not None:
            info["tokenizer"] = {"vocab_size": tokenizer.vocab_size, "context_length": tokenizer.context_length}
        write_json(self.folder / "dataset.json", info)
        return PackReport(
            out,
            self.seen,
            kept,
            self.rejected.rows,
            {name: self.writers[name].records for name in order},
            dict(self.reasons.most_common()),
            dict(self.notes.most_common()),
            sum(w.bytes for w in self.writers.values()),
        )

    def _split_info(self, name: str) -> dict[str, Any]:
        writer, records = self.writers[name], self.shard_records[name]
        shards = [{"name": shard, "records": records[shard]} for shard in writer.shards]
        return {"records": writer.records, "bytes": writer.bytes, "shards": shards}

    def _fingerprint(self) -> str:
        whole = hashlib.blake2b(digest_size=16)
        for name in sorted(self.digests):
            whole.update(name.encode() + b"\0" + self.digests[name].digest())
        return whole.hexdigest()

    def _tokenizer(self) -> Tokenizer | None:
        config = self.config
        if config.tokenizer == "none" or not self.captions["texts"]:
            return None
        if self.given is not None:
            return self.given
        train = "train" if "train" in self.writers else next(iter(self.writers))
        return Tokenizer.train(self._captions(train), config.vocab_size, config.context_length)

    def _captions(self, split: str) -> Iterator[str]:
        """All texts of a split, read back from disk; every n-th if there are too many."""
        step = -(-self.texts // self.config.tokenizer_captions)
        n = 0
        columns = ["split", "captions", "further_texts"]
        for batch in pq.ParquetFile(self.folder / "records.parquet").iter_batches(4096, columns=columns):
            for name, texts, further in zip(*(batch[c].to_pylist() for c in columns), strict=True):
                for text in (*texts, *further) if name == split else ():
                    if n % step == 0:
                        yield text
                    n += 1
