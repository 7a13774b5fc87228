"""A record as the files of one WebDataset sample, and back.

A pair with the key K is three files: ``K.jpg`` (or png, webp), ``K.txt`` (its first caption) and ``K.json``
(``captions``, ``weights``, ``meta``, and ``key`` where the source's own key could not be a file name). Any other
record numbers its binary files (``K.0.jpg``, ``K.1.ogg``) and lists its segments in the json.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from diptych.core.errors import DataError
from diptych.core.record import Modality, Record, Segment

MODALITY_OF: dict[str, Modality] = {
    "jpg": "image",
    "jpeg": "image",
    "png": "image",
    "webp": "image",
    "ogg": "audio",
    "flac": "audio",
    "wav": "audio",
    "mp4": "video",
}
"""The binary members that are ever read, by their extension. Nothing else in a tar is looked at but txt and json."""

MAX_JSON_BYTES = 16 << 20


def member_key(key: str) -> str:
    """`key` as a member name: letters, digits, ``_ - /`` only (a dot would end it). A changed key ends in a hash of
    the original, so that different keys stay different."""
    safe = re.sub(r"[^A-Za-z0-9_\-/]", "_", key)
    safe = "/".join(part for part in safe.split("/") if part)[:80].rstrip("/")
    if safe and safe == key and not re.search(r"(^|/)__", safe):  # WebDataset readers skip members called __x__
        return safe
    safe = re.sub(r"(^|/)_+", r"\1", safe).strip("/")
    return f"{safe or 'x'}-{hashlib.blake2b(key.encode(errors='surrogatepass'), digest_size=4).hexdigest()}"


def printable(text: str) -> str:
    """Text that every file of ours takes: names of files may hold bytes that are no UTF-8, which come escaped."""
    return text.encode(errors="backslashreplace").decode()


def synthetic_of(meta: dict[str, Any], texts: int) -> int:
    """How many of the `texts` alternatives of a record's first text a model wrote: the last ones, by its meta."""
    said = meta.get("synthetic")
    return min(max(said, 0), texts) if isinstance(said, int) and not isinstance(said, bool) else 0


def split_name(name: str) -> tuple[str, str]:
    """(key, suffix) of a member: the base name is cut at its first dot, as WebDataset does."""
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return f"{folder}{slash}{stem}".removeprefix("./"), suffix.lower()


def is_read(suffix: str) -> bool:
    """Whether members with this suffix are ever read."""
    return suffix in ("txt", "json") or suffix.rpartition(".")[2] in MODALITY_OF


def parse_json(raw: bytes, where: str) -> dict[str, Any]:
    """The object in a record's json. Raises DataError."""
    try:
        if len(raw) > MAX_JSON_BYTES:
            raise ValueError(f"{len(raw):,} bytes")
        value = json.loads(raw)
        if not isinstance(value, dict):
            raise ValueError(f"a {type(value).__name__}")
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}.json must be a JSON object; got {error}. Mend or remove it.") from None
    return value


def record_from_files(key: str, files: dict[str, bytes], where: str) -> Record:
    """The record that a sample's members hold: ours, or anyone's image beside a txt and a json (img2dataset's)."""
    side = parse_json(files["json"], f"{where}#{key}") if "json" in files else {}
    if isinstance(side.get("segments"), list):
        segments = tuple(_segment(s, files, f"{where}#{key}") for s in side["segments"])
        return Record(str(side.get("key", key)), segments, dict(side.get("meta") or {}))
    found = {s: data for s, data in files.items() if s.rpartition(".")[2] in MODALITY_OF}
    # beside K.jpg, a foreign K.mask.png is something about the image, not another piece of the record
    found = {s: data for s, data in found.items() if "." not in s} or found
    binary = []
    for suffix, data in found.items():
        extension = suffix.rpartition(".")[2]
        modality = MODALITY_OF[extension]
        binary.append(Segment(modality, data, "jpg" if extension == "jpeg" else extension, role=modality))
    text = files["txt"].decode(errors="replace") if "txt" in files else None
    captions, weights, meta = sidecar_texts(side, text)
    if captions:
        binary.append(Segment("text", captions, "txt", role="caption", weights=weights))
    return Record(str(side.get("key", key)) if "captions" in side else key, tuple(binary), meta)


def sidecar_texts(
    side: dict[str, Any], text: str | None
) -> tuple[tuple[str, ...], tuple[float, ...] | None, dict[str, Any]]:
    """(captions, weights, meta) out of a record's json and txt. A foreign json without captions is all meta."""
    listed = side.get("captions")
    if isinstance(listed, list) and all(isinstance(c, str) for c in listed):
        weights = side.get("weights")
        good = isinstance(weights, list) and len(weights) == len(listed)
        meta = side["meta"] if isinstance(side.get("meta"), dict) else _without(side, "captions", "weights", "key")
        return tuple(listed), (tuple(float(w) for w in weights) if good and weights else None), meta
    if text is None and isinstance(side.get("caption"), str):
        text = side["caption"]
    return ((text,) if text is not None else ()), None, side


class Words(NamedTuple):
    """A text segment as its record's json tells it: alternatives, their weights, its role, whether it bears loss."""

    texts: tuple[str, ...]
    weights: tuple[float, ...] | None = None
    role: str = "caption"
    loss: bool = True


class Pieces(NamedTuple):
    """What a record says and where its images stand in it, its images unread.

    `texts` are its text segments in order; `images` has an entry for each of its images in order: before which text
    segment it stands, the number of texts after which nothing comes being the last.
    """

    texts: tuple[Words, ...]
    images: tuple[int, ...]

    @property
    def alternatives(self) -> int:
        """How many alternatives there are to draw from. Segments with equally many are drawn together, the i-th with
        the i-th; one with fewer begins again at its first."""
        return len(self.texts[0].texts) if len(self.texts) == 1 else max((len(t.texts) for t in self.texts), default=0)

    @property
    def weights(self) -> tuple[float, ...] | None:
        """The chances of the alternatives: those of the first segment that has as many and says so."""
        if len(self.texts) == 1:
            return self.texts[0].weights
        most = self.alternatives
        return next((t.weights for t in self.texts if t.weights is not None and len(t.texts) == most), None)


def sidecar_pieces(side: dict[str, Any], text: str | None, where: str) -> Pieces:
    """The pieces of a record by its json and txt. What lists no segments is an image with its captions."""
    listed = side.get("segments")
    if not isinstance(listed, list):
        captions, weights, _ = sidecar_texts(side, text)
        return Pieces((Words(captions, weights),) if captions else (), (0,))
    texts, images = list[Words](), list[int]()
    for spec in listed:
        try:
            if spec["modality"] == "text" and spec["texts"]:
                texts.append(_words(spec))
            elif spec["modality"] == "image":
                images.append(len(texts))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise _bad_segment(spec, where, error) from None
    return Pieces(tuple(texts), tuple(images))


def _words(spec: Any) -> Words:
    weights = spec.get("weights")
    texts = tuple(str(t) for t in spec["texts"])
    given = tuple(map(float, weights)) if weights else None
    return Words(texts, given, str(spec.get("role", "")), bool(spec.get("loss", True)))


def _bad_segment(spec: Any, where: str, error: Exception) -> DataError:
    return DataError(f"{where}.json must list segments that are there; got {spec!r} ({error!r}). Pack it again.")


def _without(side: dict[str, Any], *names: str) -> dict[str, Any]:
    return {k: v for k, v in side.items() if k not in names}


def _segment(spec: Any, files: dict[str, bytes], where: str) -> Segment:
    try:
        if spec["modality"] == "text":
            words = _words(spec)
            return Segment("text", words.texts, "txt", words.role, words.loss, words.weights)
        role, loss = str(spec.get("role", "")), bool(spec.get("loss", True))
        member = spec["member"]
        extension = member.rpartition(".")[2]
        return Segment(MODALITY_OF[extension], files[member], extension, role, loss)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _bad_segment(spec, where, error) from None


def files_of_record(record: Record, key: str) -> Iterator[tuple[str, bytes, str]]:
    """(suffix, content, modality) of each member that a record becomes; the json is last."""
    binary = [s for s in record.segments if isinstance(s.payload, bytes)]
    texts = [s for s in record.segments if not isinstance(s.payload, bytes)]
    side: dict[str, Any] = {} if key == record.key else {"key": record.key}
    names = iter([s.format for s in binary] if len(binary) == 1 else [f"{i}.{s.format}" for i, s in enumerate(binary)])
    members = [(next(names), s) for s in binary]
    for suffix, segment in members:
        if MODALITY_OF.get(segment.format) != segment.modality:
            raise DataError(
                f"a stored {segment.modality} must be one of {', '.join(MODALITY_OF)}; got {segment.format!r} "
                f"in {record.key!r}. Convert it first."
            )
        yield suffix, segment.data, segment.modality
    if texts and texts[0].texts:
        yield "txt", texts[0].texts[0].encode(), "text"
    side["captions"] = list(texts[0].texts) if texts else []
    side["weights"] = list(texts[0].weights) if texts and texts[0].weights is not None else None
    side["meta"] = record.meta
    if not _is_plain(record):
        suffix_of = {id(s): suffix for suffix, s in members}
        side["segments"] = [_spec(s, suffix_of.get(id(s))) for s in record.segments]
    yield "json", json.dumps(side, ensure_ascii=False, sort_keys=True, allow_nan=False).encode(), "json"


def _is_plain(record: Record) -> bool:
    """Whether json, txt and one binary member say everything: one image (or clip) and at most one caption after it."""
    head, *tail = record.segments
    return (
        isinstance(head.payload, bytes)
        and (head.role, head.loss) == (head.modality, True)
        and len(tail) <= 1
        and all((s.modality, s.role, s.loss) == ("text", "caption", True) and bool(s.payload) for s in tail)
    )


def _spec(segment: Segment, suffix: str | None) -> dict[str, Any]:
    spec: dict[str, Any] = {"modality": segment.modality, "role": segment.role, "loss": segment.loss}
    if suffix is not None:
        return {**spec, "member": suffix}
    return {**spec, "texts": list(segment.texts), "weights": list(segment.weights) if segment.weights else None}
