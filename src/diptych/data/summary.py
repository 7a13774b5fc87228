"""What is in a dataset, in numbers and twelve pictures: the plain values behind `diptych inspect`."""

import base64
import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from diptych.core.seeds import fold
from diptych.data.dataset import Dataset
from diptych.data.decode import decode_image, encode_jpeg, resize_long_side

SAMPLES = 12
THUMBNAIL = 192
TOKENISED = 20_000
"""Captions that are tokenised for the length statistics, evenly spread; all of them in a smaller dataset."""


def summarise(dataset: Dataset) -> dict[str, Any]:
    """JSON values that describe a packed dataset:

    path, fingerprint, source, seen, kept, rejected, notes
    splits            {name: {records, bytes, shards}}
    images            {count, formats {format: n}, width, height, bytes: distributions}
    captions          {records, texts, characters: distribution of the first captions, alternatives {k: records with k},
                       distinct, duplicate_share (of records whose first caption another record has too),
                       top [{text, count}] of the 20 most repeated, tokens (below)}
    captions.tokens   {context_length, vocab_size, measured, truncated_share, ...distribution}, or None
    duplicate_images  {distinct, records, share} of records whose image another record has too
    rejects           [{reason, count, examples [{key, where, message}]}], five examples each
    samples           [{split, key, captions, width, height, jpeg (base64)}], twelve

    A distribution is {min, p5, median, p95, max, mean, edges, counts}.
    """
    columns = _read_records(dataset)
    return {
        "path": str(dataset.path),
        "fingerprint": dataset.fingerprint,
        "source": dataset.info.get("source", {}).get("name", ""),
        "seen": dataset.info["seen"],
        "kept": dataset.info["kept"],
        "rejected": dataset.info["seen"] - dataset.info["kept"],
        "notes": dataset.info.get("notes", {}),
        "splits": {
            name: {"records": s["records"], "bytes": s["bytes"], "shards": len(s["shards"])}
            for name, s in dataset.info["splits"].items()
        },
        "images": {
            "count": sum(columns.formats.values()),
            "formats": dict(columns.formats.most_common()),
            "width": distribution(np.frombuffer(columns.width, np.int32)),
            "height": distribution(np.frombuffer(columns.height, np.int32)),
            "bytes": distribution(np.frombuffer(columns.bytes, np.int64)),
        },
        "captions": _captions(dataset, columns),
        "duplicate_images": _repeated(np.frombuffer(columns.image_id, np.int64)),
        "rejects": _rejects(dataset),
        "samples": _samples(dataset),
    }


def distribution(values: np.ndarray, bins: int = 40) -> dict[str, Any] | None:
    """Quantiles and a histogram of numbers; None if there are none. Bins are logarithmic where values span 50-fold."""
    if not len(values):
        return None
    low, p5, median, p95, high = np.quantile(values, [0, 0.05, 0.5, 0.95, 1]).tolist()
    if low == high:
        edges = np.array([low, high + 1.0])
    elif low > 0 and high / low > 50:
        edges = np.geomspace(low, high, bins + 1)
    else:
        edges = np.linspace(low, high, bins + 1)
    edges[0], edges[-1] = min(edges[0], low), max(edges[-1], high)  # geomspace may round its ends inwards
    counts, _ = np.histogram(values, edges)
    return {
        "min": low,
        "p5": p5,
        "median": median,
        "p95": p95,
        "max": high,
        "mean": float(np.mean(values)),
        "edges": edges.tolist(),
        "counts": counts.tolist(),
    }


class _Columns:
    """What is kept of every record: a few dozen bytes in flat arrays."""

    def __init__(self) -> None:
        self.width, self.height, self.characters = array("i"), array("i"), array("i")
        self.bytes, self.image_id, self.caption = array("q"), array("q"), array("q")
        self.formats, self.alternatives = Counter[str](), Counter[int]()


def _batches(dataset: Dataset, *columns: str) -> Iterator[dict[str, list[Any]]]:
    for batch in pq.ParquetFile(dataset.path / "records.parquet").iter_batches(4096, columns=list(columns)):
        yield batch.to_pydict()


def _read_records(dataset: Dataset) -> _Columns:
    held = _Columns()
    for batch in _batches(dataset, "width", "height", "format", "bytes", "image_id", "captions"):
        for width, height, name, size, image, texts in zip(*batch.values(), strict=True):
            if width:
                held.width.append(width)
                held.height.append(height)
                held.image_id.append(image)
                held.formats[name] += 1
            held.bytes.append(size)
            held.alternatives[len(texts)] += 1
            if texts:
                held.characters.append(len(texts[0]))
                held.caption.append(_text_hash(texts[0]))
    return held


def _text_hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def _repeated(ids: np.ndarray) -> dict[str, Any]:
    _, counts = np.unique(ids, return_counts=True)
    repeated = int(counts[counts > 1].sum())
    return {"distinct": len(counts), "records": repeated, "share": repeated / max(len(ids), 1)}


def _captions(dataset: Dataset, columns: _Columns) -> dict[str, Any]:
    hashes = np.frombuffer(columns.caption, np.int64)
    values, counts = np.unique(hashes, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:20]
    wanted = {int(values[i]): int(counts[i]) for i in order if counts[i] > 1}
    repeated = _repeated(hashes)
    return {
        "records": len(hashes),
        "texts": sum(k * n for k, n in columns.alternatives.items()),
        "characters": distribution(np.frombuffer(columns.characters, np.int32)),
        "alternatives": {str(k): n for k, n in sorted(columns.alternatives.items())},
        "distinct": repeated["distinct"],
        "duplicate_share": repeated["share"],
        "top": _texts_of(dataset, wanted),
        "tokens": _tokens(dataset),
    }


def _texts_of(dataset: Dataset, wanted: dict[int, int]) -> list[dict[str, Any]]:
    """The texts behind the hashes of the most repeated captions, found in a second pass."""
    found: dict[int, str] = {}
    for batch in _batches(dataset, "captions"):
        if len(found) == len(wanted):
            break
        for texts in batch["captions"]:
            if texts and (value := _text_hash(texts[0])) in wanted:
                found.setdefault(value, texts[0])
    top = [{"text": found[value], "count": count} for value, count in wanted.items()]
    return sorted(top, key=lambda t: (-t["count"], t["text"]))


def _tokens(dataset: Dataset) -> dict[str, Any] | None:
    total = dataset.info["captions"]["texts"]
    if not total or not (dataset.path / "tokenizer.json").exists():
        return None
    tokenizer = dataset.tokenizer()
    step, n, texts = -(-total // TOKENISED), 0, list[str]()
    for batch in _batches(dataset, "captions"):
        for alternatives in batch["captions"]:
            texts += [t for i, t in enumerate(alternatives) if (n + i) % step == 0]
            n += len(alternatives)
    encoded = tokenizer.encode_all(texts)
    return {
        "context_length": tokenizer.context_length,
        "vocab_size": tokenizer.vocab_size,
        "measured": len(texts),
        "truncated_share": sum(bool(e.truncated) for e in encoded) / len(encoded),
        **(distribution(np.array([len(e.ids) for e in encoded])) or {}),
    }


def _rejects(dataset: Dataset) -> list[dict[str, Any]]:
    counts = Counter[str]()
    examples: dict[str, list[dict[str, str]]] = {}
    for batch in pq.ParquetFile(dataset.path / "rejected.parquet").iter_batches(4096):
        for row in batch.to_pylist():
            counts[row["reason"]] += 1
            named = examples.setdefault(row["reason"], [])
            if len(named) < 5:
                named.append({k: row[k] for k in ("key", "where", "message")})
    return [{"reason": r, "count": n, "examples": examples[r]} for r, n in counts.most_common()]


def _samples(dataset: Dataset) -> list[dict[str, Any]]:
    """Twelve records of the first split, spread over it by a hash: the same each time."""
    split = next(iter(dataset.splits.values()))
    places = sorted({fold("inspect", n) % len(split) for n in range(4 * SAMPLES)}, key=lambda i: fold("sample", i))
    samples = list[dict[str, Any]]()
    for i in places:
        width, height = split.image_size(i)
        if len(samples) == SAMPLES:
            break
        if not width:
            continue
        pixels = decode_image(split.image_bytes(i), at_least=2 * THUMBNAIL)
        samples.append(
            {
                "split": split.name,
                "key": split.record(i).key,
                "captions": list(split.captions(i)),
                "width": width,
                "height": height,
                "jpeg": base64.b64encode(encode_jpeg(resize_long_side(pixels, THUMBNAIL), 85)).decode(),
            }
        )
    return samples
