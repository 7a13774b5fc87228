"""Pages of texts and images in turn, as OBELICS and MMC4 write them: a .jsonl or a .json list, a page a row.

    {"texts": ["Before.", null, "After."], "images": [null, "a.jpg", null]}
    {"text_list": ["Before.", "After."], "image_info": [{"image_name": "a.jpg", "matched_text_index": 1}]}

In the first form exactly one of the two lists has something at each place; in the second each image stands before the
sentence that it was matched to. Everything that is written bears loss.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from diptych.core.record import Record, Segment
from diptych.data.json_rows import JsonRow, JsonSource, WrongRow, first_object, image_segment, plain_meta
from diptych.data.sources.source import Look, Reject, SourceConfig

USED = ("texts", "images", "text_list", "image_info", "metadata", "similarity_matrix")


def recognises(found: Look) -> bool:
    """Whether the first row of a .json or .jsonl is a page: two lists, never both set at a place."""
    row = first_object(found)
    if all(isinstance(row.get(name), list) for name in ("text_list", "image_info")):
        return True
    texts, images = row.get("texts"), row.get("images")
    if not isinstance(texts, list) or not isinstance(images, list) or len(texts) != len(images):
        return False
    return all(t is None or i is None for t, i in zip(texts, images, strict=True))


class PagesConfig(SourceConfig):
    """Image paths start at `image_root`, else at the file's folder."""

    path: str
    image_root: str = ""

    def build(self) -> "Pages":
        """The source."""
        return Pages(self)


Item = str | tuple[Any]
"""A text, or an image as what names it."""


class Pages(JsonSource):
    """A record a page, keyed by the number of its row."""

    config: PagesConfig

    def record_of(self, row: JsonRow) -> Record | Reject:
        values = row[2]
        matched = "text_list" in values
        items = list(_matched(values) if matched else _parallel(values))
        segments, waiting = list[Segment](), list[str]()

        def written() -> None:
            if waiting:
                text = (" " if matched else "\n").join(waiting)  # sentences, or paragraphs
                segments.append(Segment("text", (text,), "txt", role="caption"))
                waiting.clear()

        for item in items:
            if isinstance(item, str):
                waiting.append(item)
                continue
            written()
            found = image_segment(item[0], row, self.root, self.max_bytes)
            if isinstance(found, Reject):
                return found
            segments.append(found)
        written()
        return Record(row[0], tuple(segments), plain_meta(values, USED))


def _parallel(values: dict[str, Any]) -> Iterator[Item]:
    texts, images = values.get("texts"), values.get("images")
    if not isinstance(texts, list) or not isinstance(images, list) or len(texts) != len(images):
        sizes = [len(x) if isinstance(x, list) else "none" for x in (texts, images)]
        raise WrongRow(
            "lists_differ", f"a page's texts and images must be lists of one length; got {sizes[0]} and {sizes[1]}."
        )
    for place, (text, image) in enumerate(zip(texts, images, strict=True)):
        if text is not None and image is not None:
            raise WrongRow("text_and_image", f"a page must have a text or an image at a place; at {place} it has both.")
        if text is not None and not isinstance(text, str):
            raise WrongRow("bad_text", f"a page's texts must be texts; got a {type(text).__name__} at {place}.")
        if image is not None:
            yield (image,)
        elif text is not None and text.strip():
            yield text.strip()


def _matched(values: dict[str, Any]) -> Iterator[Item]:
    texts, infos = values.get("text_list"), values.get("image_info")
    if not isinstance(texts, list) or not all(isinstance(t, str) for t in texts) or not isinstance(infos, list):
        raise WrongRow("lists_differ", "a page must have text_list, a list of texts, and image_info; it has not.")
    before: dict[int, list[Any]] = {}
    for info in infos:
        index = info.get("matched_text_index") if isinstance(info, Mapping) else None
        if not isinstance(index, int) or not 0 <= index < len(texts):
            raise WrongRow(
                "image_without_text",
                f"a page's image must be matched to one of its {len(texts)} texts; got {index!r}. Leave it out.",
            )
        named = next((info[n] for n in ("image_name", "image", "path", "bytes", "raw_url") if info.get(n)), None)
        before.setdefault(index, []).append(named)
    for index, text in enumerate(texts):
        for named in before.get(index, ()):
            yield (named,)
        if text.strip():
            yield text.strip()
