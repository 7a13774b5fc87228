"""One record in, one verdict out: kept as it will be stored, or rejected with a reason. Pure: any process can do it."""

import hashlib
import json
import unicodedata
from collections import Counter
from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple

from pydantic import Field
from torch import Tensor

from diptych.core.config import Config
from diptych.core.record import Record, Segment
from diptych.data.decode import (
    MAX_BYTES,
    MAX_PIXELS,
    STORED_FORMATS,
    BadImage,
    decode_image,
    encode_jpeg,
    encode_png,
    probe,
    resize_long_side,
)
from diptych.data.face_blur import FaceBlurConfig, blur_faces, faces_of
from diptych.data.face_boxes import FIELD, BadBoxes, FaceBox
from diptych.data.image_header import check_png
from diptych.data.record_files import MODALITY_OF, printable
from diptych.data.sources.source import Reject


class Limits(Config):
    """What an image may be, and how it is stored.

    `resize` > 0 shrinks images whose long side is longer to it, once, re-encoding them; 0 stores the source's bytes.
    A record keeps the size of its first image before that as original_width and original_height in its meta, unless it
    brings such. `min_side`, `max_side` in pixels; `max_aspect` is long side over short side. `faces`: which are
    blurred.
    """

    resize: Annotated[int, Field(ge=0)] = 0
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = 92
    max_bytes: Annotated[int, Field(ge=1)] = MAX_BYTES
    max_pixels: Annotated[int, Field(ge=1, le=178_956_970)] = MAX_PIXELS
    min_side: Annotated[int, Field(ge=1)] = 1
    max_side: Annotated[int, Field(ge=0)] = 0
    max_aspect: Annotated[float, Field(ge=1)] = 20.0
    faces: FaceBlurConfig = FaceBlurConfig()


@dataclass(frozen=True, slots=True)
class Kept:
    """A record as it will be stored, its uid, the (width, height) of its images, and what was done to them
    ("animated", "reencoded", "resized", "faces_blurred", "without_face_boxes")."""

    record: Record
    uid: str
    sizes: tuple[tuple[int, int], ...]
    notes: tuple[str, ...] = ()


class _Refused(Exception):
    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason, self.message = reason, message


def judge(record: Record, limits: Limits, images_only: bool = False) -> Kept | Reject:
    """`record` cleaned, fully decoded once, re-encoded where needed; or why not."""
    size = sum(len(s.payload) for s in record.segments if isinstance(s.payload, bytes))
    try:
        segments, images = list[Segment](), list[_Stored]()
        for segment in clean_texts(record.segments):
            if segment.modality == "image":
                images.append(_judge_image(segment, limits, None if images else record.meta))
                segments.append(images[-1].segment)
            elif segment.modality != "text":
                _judge_clip(segment, limits)
                segments.append(segment)
            else:
                segments.append(segment)
        if not images_only and not any(s.modality == "text" for s in segments):
            raise _Refused(
                "no_caption", "a record must have a caption; it has none. Add one, or pack with images_only."
            )
        if not segments:
            raise _Refused("empty_record", "a record must hold something; it has no segments.")
        meta = _meta_of(record, images)
        try:
            json.dumps(meta, ensure_ascii=False, sort_keys=True, allow_nan=False).encode()
        except UnicodeEncodeError:
            wrong = next((k for k, v in meta.items() if printable(f"{k}{v}") != f"{k}{v}"), "meta")
            raise _Refused(
                "bad_text", f"{printable(str(wrong))!r} must be valid Unicode; it is not. Name the file's encoding."
            ) from None
        except (TypeError, ValueError, RecursionError) as error:
            raise _Refused("bad_meta", f"a record's meta must be plain JSON values; got {error}.") from None
    except (BadImage, _Refused) as error:
        return Reject(record.key, error.message, error.reason, size=size)
    kept = replace(record, key=printable(record.key), segments=tuple(segments), meta=meta)
    notes = dict.fromkeys(note for image in images for note in image.notes)
    return Kept(kept, kept.uid, tuple(image.size for image in images), tuple(notes))


def clean_texts(segments: tuple[Segment, ...]) -> list[Segment]:
    """The segments with clean texts, without texts of which nothing remains.

    Texts with equally many alternatives stay in step, the i-th of one with the i-th of the other: what is empty in one
    of them goes from all, and what is repeated counts as repeated only where it is so in all.
    """
    counts = Counter(len(s.texts) for s in segments if s.modality == "text" and len(s.texts) > 1)
    cleaned = list[Segment]()
    for segment in segments:
        if segment.modality != "text":
            cleaned.append(segment)
        elif counts[len(segment.texts)] > 1:
            rows = _rows_in_step([s for s in segments if s.modality == "text" and len(s.texts) == len(segment.texts)])
            if rows:
                texts, weights = tuple(_clean(segment.texts[r[0]]) for r in rows), segment.weights
                summed = None if weights is None else tuple(sum(weights[i] for i in r) for r in rows)
                cleaned.append(replace(segment, payload=texts, weights=summed))
        elif (text := clean_text(segment)) is not None:
            cleaned.append(text)
    return cleaned


def _rows_in_step(segments: list[Segment]) -> list[list[int]]:
    """The alternatives that stay, each with the numbers of those that say the same in all of `segments`."""
    for segment in segments:
        clean_text(segment)  # refuses weights and texts that cannot be
    rows: dict[tuple[str, ...], list[int]] = {}
    for number, texts in enumerate(zip(*(s.texts for s in segments), strict=True)):
        row = tuple(map(_clean, texts))
        if all(row):
            rows.setdefault(row, []).append(number)
    return list(rows.values())


def clean_text(segment: Segment) -> Segment | None:
    """A text segment with its alternatives in NFC, stripped, without empty or repeated ones (weights are added up);
    None if nothing remains. Words, case and inner spaces are the user's own."""
    given = segment.weights or (1.0,) * len(segment.texts)
    if len(given) != len(segment.texts) or any(not 0 <= w < float("inf") for w in given):
        raise _Refused(
            "bad_weights", f"captions need one weight each, not negative; got {len(given)} for {len(segment.texts)}."
        )
    weights: dict[str, float] = {}
    for text, weight in zip(segment.texts, given, strict=True):
        if clean := _clean(text):
            weights[clean] = weights.get(clean, 0.0) + weight
    if not weights:
        return None
    if sum(weights.values()) <= 0:
        raise _Refused("bad_weights", "captions need weights that are not all zero; got only zeros.")
    return replace(
        segment, payload=tuple(weights), weights=None if segment.weights is None else tuple(weights.values())
    )


def _clean(text: str) -> str:
    clean = unicodedata.normalize("NFC", text.replace("\0", "")).strip()
    try:
        clean.encode()
    except UnicodeEncodeError:
        raise _Refused(
            "bad_text", f"a caption must be valid Unicode; got {clean[:40]!r}. Name the file's encoding."
        ) from None
    return clean


class _Stored(NamedTuple):
    """An image as it will be stored: its width and height, what was done to it, and what its record's meta is to say
    of it: (width, height) before it was shrunk, the hash of what came, and the faces that were blurred."""

    segment: Segment
    size: tuple[int, int]
    notes: list[str]
    original: tuple[int, int] | None = None
    sha256: str = ""
    faces: tuple[FaceBox, ...] = ()


def _judge_image(segment: Segment, limits: Limits, meta: dict[str, Any] | None) -> _Stored:
    """`meta`: of the record, for its first image, which boxes in it are of."""
    data = segment.data
    header = probe(data, limits.max_bytes, limits.max_pixels)
    width, height = header.width, header.height
    if min(width, height) < limits.min_side:
        raise _Refused(
            "too_small", f"an image must be at least {limits.min_side} pixels a side; got {width} x {height}."
        )
    if limits.max_side and max(width, height) > limits.max_side:
        raise _Refused(
            "too_large", f"an image must be at most {limits.max_side} pixels a side; got {width} x {height}."
        )
    if max(width, height) > limits.max_aspect * min(width, height):
        raise _Refused(
            "too_narrow", f"an image's sides must be at most 1:{limits.max_aspect:g}; got {width} x {height}. Crop it."
        )
    shrink = bool(limits.resize) and max(width, height) > limits.resize
    # every byte of it is read: this is the check; where no pixel is needed, a JPEG's are made at an eighth
    needed = shrink or limits.faces.blur != "none" or header.format not in STORED_FORMATS
    pixels = decode_image(data, limits.max_pixels, limits.max_bytes, at_least=0 if needed else 1)
    if header.format == "png":
        check_png(data)
    notes = ["animated"] if header.frames > 1 else []
    faces = _faces(pixels, meta, limits, notes)
    if not shrink and not faces and header.frames == 1 and header.format in STORED_FORMATS:
        _check_stored(width, height, data)
        return _Stored(replace(segment, format=header.format), (width, height), notes)
    if shrink:
        pixels = resize_long_side(pixels, limits.resize)
        notes.append("resized")
    if faces:
        pixels = blur_faces(pixels, faces, limits.faces.margin, limits.faces.strength)
        notes.append("faces_blurred")
    changed = (shrink or bool(faces)) and header.format in ("webp", "tiff") and header.mode == "RGB"
    photo = header.format == "jpg" or changed
    payload = encode_jpeg(pixels, limits.jpeg_quality) if photo else encode_png(pixels)
    _check_stored(pixels.shape[2], pixels.shape[1], payload)
    stored = replace(segment, payload=payload, format="jpg" if photo else "png")
    return _Stored(
        stored,
        (pixels.shape[2], pixels.shape[1]),
        [*notes, "reencoded"],
        (width, height) if shrink else None,
        hashlib.sha256(data).hexdigest() if faces else "",
        faces,
    )


def _faces(pixels: Tensor, meta: dict[str, Any] | None, limits: Limits, notes: list[str]) -> tuple[FaceBox, ...]:
    """The faces to be blurred. What cannot be read is refused: a picture must not pass with its faces for that."""
    config = limits.faces
    if config.blur == "none":
        return ()
    try:
        faces = faces_of(pixels, meta or {}, config)
    except BadBoxes as error:
        raise _Refused("bad_face_boxes", str(error)) from None
    if faces is None and meta is not None:
        if config.without == "reject":
            message = f"a record must say in {config.field} where faces are; it does not. Set faces.without=keep."
            raise _Refused("no_face_boxes", message)
        notes.append("without_face_boxes")
    return faces or ()


def _meta_of(record: Record, images: list[_Stored]) -> dict[str, Any]:
    """The record's meta, and in it what its first image was, and how many faces are blurred in all of them."""
    meta = dict(record.meta)
    blurred = sum(len(image.faces) for image in images)
    if blurred:
        meta["faces_blurred"] = blurred
    if images and images[0].faces:
        meta.setdefault("original_sha256", images[0].sha256)
        meta[FIELD] = [list(face) for face in images[0].faces]
    if images and images[0].original and not {"original_width", "original_height"} <= meta.keys():
        meta["original_width"], meta["original_height"] = images[0].original
    return meta


def _check_stored(width: int, height: int, data: bytes) -> None:
    """Limits may be raised for what is read here once; whoever reads the dataset later has the house's own."""
    if width * height > MAX_PIXELS or len(data) > MAX_BYTES:
        raise _Refused(
            "too_large_to_store",
            f"a stored image must have at most {MAX_PIXELS:,} pixels and {MAX_BYTES:,} bytes; got {width} x {height} "
            f"and {len(data):,}. Pack with resize.",
        )


def _judge_clip(segment: Segment, limits: Limits) -> None:
    """Audio and video are checked by name, size and first bytes only: their decoders come with their paradigms."""
    data = segment.data
    if len(data) > limits.max_bytes:
        raise _Refused("too_many_bytes", f"a clip must have at most {limits.max_bytes:,} bytes; got {len(data):,}.")
    begins = {
        "ogg": data[:4] == b"OggS",
        "flac": data[:4] == b"fLaC",
        "wav": data[:4] == b"RIFF" and data[8:12] == b"WAVE",
        "mp4": data[4:8] == b"ftyp",
    }
    if MODALITY_OF.get(segment.format) != segment.modality or not begins.get(segment.format, False):
        raise _Refused(
            f"not_{segment.modality}",
            f"a {segment.modality} segment must be ogg, flac, wav or mp4; got {segment.format!r}, first {data[:8]!r}.",
        )
