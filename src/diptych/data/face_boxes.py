"""Where the faces in a picture are: boxes in shares of its sides, as DataComp's tables (`face_bboxes`) have them."""

import json
from typing import Any, NamedTuple

import numpy as np

from diptych.core.errors import DataError

FIELD = "face_bboxes"
"""What DataComp calls the boxes of a record."""
MOST = 100
"""Faces of a picture; what names more is no photograph of people, or was written to keep us busy."""

MAX_TEXT = 20_000
"""Characters of boxes in JSON."""
TIMES_COVERED = 8
"""The same: blurring takes as long as there are pixels in boxes."""


class FaceBox(NamedTuple):
    """A face: left, top, right and bottom in shares (0 to 1) of the upright picture's width and height."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        """Its share of the picture."""
        return (self.right - self.left) * (self.bottom - self.top)


class BadBoxes(DataError):
    """Boxes that cannot be meant: nothing may pass as having no faces because its boxes are wrong."""


def boxes_in(meta: dict[str, Any], field: str = FIELD) -> tuple[FaceBox, ...] | None:
    """The boxes that a record's meta holds, cut to the picture, largest first and each once; None: it says nothing.

    A list of [left, top, right, bottom], or JSON of one. Raises BadBoxes where it holds something else.
    """
    value = meta.get(field)
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise BadBoxes(f"{field} must be JSON of a list of boxes; got {value[:60]!r}. Mend the table.") from None
    if value is None or value == "":
        return None
    if not isinstance(value, list | tuple) or len(value) > MOST:
        got = f"{len(value):,}" if isinstance(value, list | tuple) else f"a {type(value).__name__}"
        raise BadBoxes(f"{field} must be a list of at most {MOST} boxes; got {got}. Mend the table.")
    boxes = {box for box in (_box(given, field) for given in value) if box.area > 0}
    if sum(box.area for box in boxes) > TIMES_COVERED:
        raise BadBoxes(f"boxes of {field} must cover a picture at most {TIMES_COVERED} times. Mend the table.")
    return tuple(sorted(boxes, key=lambda box: (-box.area, box)))


def carried(value: Any) -> list[Any] | str | None:
    """What of a table's cell goes into a record's meta, if it looks like boxes: a list of lists of four, or JSON of
    lists; None: it does not. What is too long is cut so that `boxes_in` refuses it, rather than lost."""
    if isinstance(value, str):
        return value[:MAX_TEXT] if value.lstrip().startswith("[[") else None
    if not isinstance(value, list | tuple):
        return None
    if value and not (isinstance(value[0], list | tuple) and len(value[0]) == 4):
        return None
    return [[_plain(v) for v in box[:5]] if isinstance(box, list | tuple) else None for box in value[: MOST + 1]]


def _plain(value: Any) -> int | float | None:
    """A number that JSON has."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63
    return value if number else None


def covered_share(boxes: tuple[FaceBox, ...]) -> float:
    """The share of a picture that some box covers; where boxes overlap, it counts once."""
    xs = sorted({x for box in boxes for x in (box.left, box.right)})
    ys = sorted({y for box in boxes for y in (box.top, box.bottom)})
    cells = np.zeros((max(len(ys) - 1, 0), max(len(xs) - 1, 0)), dtype=bool)
    for box in boxes:
        cells[ys.index(box.top) : ys.index(box.bottom), xs.index(box.left) : xs.index(box.right)] = True
    return float(np.diff(ys) @ cells @ np.diff(xs)) if cells.size else 0.0


def _box(given: Any, field: str) -> FaceBox:
    numbers = given if isinstance(given, list | tuple) else ()
    if len(numbers) != 4 or any(isinstance(v, bool) or not isinstance(v, int | float) for v in numbers):
        raise BadBoxes(f"a box of {field} must be [left, top, right, bottom]; got {str(given)[:60]}. Mend the table.")
    # detectors say -0.01 or 1.02 of a face at the edge; 150 is a pixel; NaN fails too, and what is too long for a float
    if any(not -1 <= v <= 2 for v in numbers):
        raise BadBoxes(
            f"a box of {field} must be in shares of the picture's sides, from 0 to 1; got {str(given)[:60]}. Divide "
            "pixels by the width and the height."
        )
    box = FaceBox(*(min(max(float(v), 0.0), 1.0) for v in numbers))
    if box.left > box.right or box.top > box.bottom:
        raise BadBoxes(f"a box of {field} must be [left, top, right, bottom]; got {str(given)[:60]}. Mend the table.")
    return box
