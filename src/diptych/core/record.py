"""What a user's data is made of: a record is a tuple of segments."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

Modality = Literal["image", "text", "audio", "video"]


@dataclass(frozen=True, slots=True)
class Segment:
    """One piece of a record: an encoded image, a text with its alternatives, a clip.

    `payload` is the encoded file (bytes) of an image, audio or video segment, and a tuple of alternative
    strings of a text segment: many captions of one image are alternatives of one segment.
    `weights` are the chances with which the alternatives are drawn in training; None means all alike.
    `format` is the file extension of the payload without its dot ("jpg", "png", "webp", "txt", ...).
    `role` says what the segment is for ("image", "caption", "question", "answer"); `loss` says whether it bears loss.
    """

    modality: Modality
    payload: bytes | tuple[str, ...]
    format: str
    role: str = ""
    loss: bool = True
    weights: tuple[float, ...] | None = None

    @property
    def data(self) -> bytes:
        """The encoded bytes of an image, audio or video segment."""
        assert isinstance(self.payload, bytes), f"a {self.modality} segment holds no bytes"
        return self.payload

    @property
    def texts(self) -> tuple[str, ...]:
        """The alternatives of a text segment."""
        assert not isinstance(self.payload, bytes), f"a {self.modality} segment holds no text"
        return self.payload


@dataclass(frozen=True, slots=True)
class Record:
    """A raw, undecoded sample: `key` names it in its source, `segments` are its pieces in order.

    `meta` holds whatever else the source knows (JSON values only): a label, an artist, a licence, a url.
    """

    key: str
    segments: tuple[Segment, ...]
    meta: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def pair(
        cls,
        key: str,
        image: bytes,
        image_format: str,
        captions: tuple[str, ...],
        weights: tuple[float, ...] | None = None,
        meta: dict[str, Any] | None = None,
    ) -> "Record":
        """An image and the captions that say the same of it."""
        return cls(
            key,
            (
                Segment("image", image, image_format, role="image"),
                Segment("text", captions, "txt", role="caption", weights=weights),
            ),
            meta or {},
        )

    def first(self, modality: Modality) -> Segment | None:
        """The first segment of `modality`, or None."""
        return next((s for s in self.segments if s.modality == modality), None)

    @property
    def uid(self) -> str:
        """128 bits of a hash of the content, as 32 hex digits: equal content, equal uid, wherever it came from.

        Wrong captions (meta "distractors", and the "test" that they are of) count as content: beside others, the same
        image and caption are another question.
        """
        h = hashlib.blake2b(digest_size=16)
        for s in self.segments:
            parts = (s.payload,) if isinstance(s.payload, bytes) else tuple(t.encode() for t in s.payload)
            h.update(f"{s.modality}\0{s.role}\0{len(parts)}\0".encode())
            for p in parts:
                h.update(len(p).to_bytes(8, "little"))
                h.update(p)
        if wrong := self.meta.get("distractors"):
            h.update(json.dumps([wrong, self.meta.get("test")], sort_keys=True, default=str).encode())
        return h.hexdigest()
