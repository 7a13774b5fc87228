"""POPE's questions: is there such a thing in the picture, yes or no? (Li et al., arXiv:2305.10355).

    {"question_id": 1, "image": "COCO_val2014_000000310196.jpg", "text": "Is there a snowboard in the image?",
     "label": "yes"}

Its files are called .json and hold an object a line; the category (random, popular, adversarial) is in their names.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diptych.core.record import Record, Segment
from diptych.data.image_folder import LOOKED_AT, find_image_folder
from diptych.data.json_documents import first_row
from diptych.data.json_rows import JsonRow, json_rows
from diptych.data.record_files import printable
from diptych.data.rows import suffix_of
from diptych.data.sources.source import Look, Reject, Source, SourceConfig, read_file

CATEGORIES = ("random", "popular", "adversarial")
ANSWERS = ("yes", "no")


def recognises(found: Look) -> bool:
    """Whether the first row is a question about an image with yes or no, or with one of POPE's categories."""
    row = first_row(found)
    if not {"question_id", "image", "text"} <= row.keys() or any(isinstance(v, (list, dict)) for v in row.values()):
        return False
    return str(row.get("label")).lower() in ANSWERS or ("label" not in row and row.get("category") in CATEGORIES)


class PopeConfig(SourceConfig):
    """Images lie in `image_root`, else near the file (val2014). `category` of rows that say none; empty: that of
    POPE's which is in the file's name, else "pope"."""

    path: str
    image_root: str = ""
    category: str = ""

    def build(self) -> "Pope":
        """The source."""
        return Pope(self)


class Pope(Source):
    """A record a run of rows with one image and one category, keyed by the first: an image, its questions, and yes or
    no to each. Meta: `category`, `question_ids`, `image`, and `kinds` (the category of each question).

    A question that is asked again of the same image begins a record of its own.
    """

    config: PopeConfig

    def __init__(self, config: PopeConfig) -> None:
        self.config = config
        self.path = Path(config.path)
        named = next((c for c in CATEGORIES if c in self.path.stem.lower()), "pope")
        self.category = config.category or named

    def records(self) -> Iterator[Record | Reject]:
        """The questions in their order. Raises DataError where the images' folder cannot be found."""
        good = (row for row in json_rows(self.path) if not isinstance(row, Reject))
        first = [(str(values.get("image", "")),) for _, _, values in itertools.islice(good, LOOKED_AT)]
        root = find_image_folder(first, self.path, self.config.image_root, ("val2014",))
        waiting: list[JsonRow] = []
        for row in json_rows(self.path):
            wrong = row if isinstance(row, Reject) else _problem(row)
            if wrong is not None:
                yield wrong
                continue
            assert not isinstance(row, Reject)
            if waiting and not self._goes_with(row, waiting):
                yield self._record(waiting, root)
                waiting = []
            waiting.append(row)
        if waiting:
            yield self._record(waiting, root)

    def where(self, key: str) -> str:
        """The row in the file."""
        return f"{self.path} row {int(key)}"

    def _category(self, values: dict[str, Any]) -> str:
        return str(values.get("category") or self.category)

    def _goes_with(self, row: JsonRow, waiting: list[JsonRow]) -> bool:
        head, new = waiting[0][2], row[2]
        same = head["image"] == new["image"] and self._category(head) == self._category(new)
        return same and new["text"].strip() not in {r[2]["text"].strip() for r in waiting}

    def _record(self, rows: list[JsonRow], root: Path) -> Record | Reject:
        key, where, head = rows[0]
        data = read_file(root / head["image"], key, self.max_bytes)
        if isinstance(data, Reject):
            return Reject(key, data.message, data.reason, where, data.size)
        category = self._category(head)
        return Record(
            key,
            (
                Segment("image", data, suffix_of(head["image"]), role="image"),
                Segment("text", tuple(r[2]["text"].strip() for r in rows), "txt", role="question", loss=False),
                Segment("text", tuple(str(r[2]["label"]).strip().lower() for r in rows), "txt", role="answer"),
            ),
            {
                "image": printable(head["image"]),
                "category": category,
                "kinds": [category] * len(rows),
                "question_ids": [r[2].get("question_id") for r in rows],
            },
        )


def _problem(row: JsonRow) -> Reject | None:
    key, where, values = row
    if not all(isinstance(values.get(n), str) and values[n].strip() for n in ("image", "text")):
        return Reject(key, "a question must have an image and a text; it has not. Leave it out.", "bad_row", where)
    if str(values.get("label")).strip().lower() not in ANSWERS:
        got = repr(values["label"]) if "label" in values else "none"
        message = (
            f"a question must have the label yes or no; got {got}. LLaVA's list of POPE's questions has none: take "
            "coco_pope_random.json and its like."
        )
        return Reject(key, message, "no_label", where)
    return None
