"""Winoground's examples: two images and two captions of the same words, to be matched.

Thrush et al., arXiv:2204.03162.

{"id": 0, "image_0": "ex_0_img_0", "image_1": "ex_0_img_1", "caption_0": "an old person kisses a young person",
 "caption_1": "a young person kisses an old person", "tag": "Adjective-Age", "collapsed_tag": "Object"}
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diptych.core.record import Record, Segment
from diptych.data.image_folder import LOOKED_AT, find_image_folder
from diptych.data.json_documents import entries, first_row
from diptych.data.json_rows import JsonRow, plain_meta
from diptych.data.rows import suffix_of
from diptych.data.sources.source import Look, Reject, Source, SourceConfig, read_file

FIELDS = frozenset({"image_0", "image_1", "caption_0", "caption_1"})
TAGS = ("collapsed_tag", "tag", "secondary_tag")
FILE = "examples.jsonl"
ENDINGS = ("", ".png", ".jpg", ".jpeg", ".webp")
"""The file says "ex_0_img_0" of the image ex_0_img_0.png."""


def recognises(found: Look) -> bool:
    """Whether the first row has two images and two captions; of a folder, that of its examples.jsonl."""
    if found.is_file:
        return first_row(found).keys() >= FIELDS
    return FILE in found.names and first_row(Look(found.path / FILE, True, "jsonl")).keys() >= FIELDS


class WinogroundConfig(SourceConfig):
    """Images lie in `image_root`, else in a folder near the file. `test` is the test's name in the records."""

    path: str
    image_root: str = ""
    test: str = "winoground"

    def build(self) -> "Winoground":
        """The source."""
        return Winoground(self)


class Winoground(Source):
    """A record an example, keyed by its row: image, text, image, text, where the i-th text is the i-th image's.

    Meta: `test`, `tags` (of what kind the swap is: Object, Relation or Both, then finer), and what else a row says.
    """

    config: WinogroundConfig

    def __init__(self, config: WinogroundConfig) -> None:
        self.config = config
        path = Path(config.path)
        self.path = path / FILE if path.is_dir() else path

    def records(self) -> Iterator[Record | Reject]:
        """The examples in their order. Raises DataError where the images' folder cannot be found."""
        first: list[tuple[str, ...]] = []
        for row in entries(self.path):
            if len(first) >= LOOKED_AT:
                break
            if not isinstance(row, Reject):
                first.append(_names(row[2].get("image_0")))
        root = find_image_folder(first, self.path, self.config.image_root)
        for row in entries(self.path):
            yield row if isinstance(row, Reject) else self._record(row, root)

    def where(self, key: str) -> str:
        """The row in the file."""
        return f"{self.path} row {key}"

    def _record(self, row: JsonRow, root: Path) -> Record | Reject:
        key, where, values = row
        segments: list[Segment] = []
        for number in (0, 1):
            names, caption = _names(values.get(f"image_{number}")), values.get(f"caption_{number}")
            if not names or not isinstance(caption, str) or not caption.strip():
                message = "an example must have two images and two captions; it has not. Leave it out."
                return Reject(key, message, "bad_row", where)
            name = next((n for n in names if (root / n).is_file()), names[1])
            data = read_file(root / name, key, self.max_bytes)
            if isinstance(data, Reject):
                return Reject(key, data.message, data.reason, where, data.size)
            segments.append(Segment("image", data, suffix_of(name), role="image"))
            segments.append(Segment("text", (caption,), "txt", role="caption"))
        meta = plain_meta(values, tuple(FIELDS))
        tags = [str(values[t]) for t in TAGS if values.get(t)]
        return Record(key, tuple(segments), {**meta, "test": self.config.test, "tags": tags})


def _names(value: Any) -> tuple[str, ...]:
    """The file names that an image may have."""
    return tuple(f"{value}{ending}" for ending in ENDINGS) if isinstance(value, str) and value else ()
