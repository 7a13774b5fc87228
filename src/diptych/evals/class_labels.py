"""The labels of a split's records: one an image, or several; and the classes where labels are numbers without names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from diptych.core.errors import EvalError
from diptych.evals.eval import some
from diptych.evals.prompts import Classes, classes_file, read_classes
from diptych.evals.scoring import PairScoringConfig

FIELDS = ("label", "class_index")
"""Where a record's class is looked for, if no field is named."""


class ClassConfig(PairScoringConfig):
    """Base of the settings of evals that put classes' names into prompts."""

    abstract: ClassVar[bool] = True
    classes: str | tuple[str, ...] = ""
    """A file with a class a line (name, or label<TAB>name), or the names; empty: the dataset's classes.txt, else the
    labels of the split."""
    templates: str | tuple[str, ...] = ""
    """A file with a prompt a line, or the name of a set: "clip", "simple", "plain", or that of one of the CLIP paper's
    data sets (cifar10, fgvc_aircraft, ...); empty: the dataset's templates.txt, else "clip"."""
    label_field: str = ""
    """Which value of a record's meta is its class (a label, or a line of the classes); empty: label or class_index."""
    batch_size: int = Field(64, ge=1)
    bootstrap: int = Field(1000, ge=100)
    seed: int = 0

    def looked_at(self, data: Any) -> tuple[str, list[list[Any]]]:
        """The field that should hold labels, and what a few records hold in it or its like: an empty list is none."""
        fields = (self.label_field,) if self.label_field else FIELDS
        metas = (data.meta(p) for p in some(data))
        return fields[0], [[m[f] for f in fields if m.get(f) is not None] for m in metas]


def read_labels(split: Any, places: Sequence[int], field: str) -> tuple[str, dict[int, Any]]:
    """Each record's label and the meta field that it comes from (`field`; empty: label, else class_index)."""
    field, found = _values(split, places, field)
    for p, label in found.items():
        if not isinstance(label, (str, int)):
            raise EvalError(
                f"a label must be a text or a whole number; got {label!r} as {field!r} of record {split.uid(p)}. "
                "Give each image one label, name another field with label_field, or use the eval multi_label."
            )
    return field, found


def read_label_lists(split: Any, places: Sequence[int], field: str) -> tuple[str, dict[int, tuple[Any, ...]]]:
    """Each record's labels, of which there may be none or several, and the meta field that they come from."""
    field, found = _values(split, places, field)
    for p, labels in found.items():
        if not isinstance(labels, (list, tuple)) or not all(isinstance(x, (str, int)) for x in labels):
            raise EvalError(
                f"labels must be a list of texts or whole numbers; got {labels!r} as {field!r} of record "
                f"{split.uid(p)}. Where each image has one label, use the eval zero_shot."
            )
    return field, {p: tuple(dict.fromkeys(labels)) for p, labels in found.items()}


def label_classes(wanted: str | Sequence[str], folder: Path | None, labels: Sequence[Any]) -> Classes:
    """As `read_classes`; but labels that are whole numbers only, and have no names, are called by their numbers."""
    named = bool(wanted) or classes_file(folder) is not None
    numbers = [x for x in labels if isinstance(x, int)]
    if named or len(numbers) < len(labels) or not numbers:
        return read_classes(wanted, folder, labels)
    names = tuple(str(n) for n in range(max(numbers) + 1))
    if len(names) < 2:
        raise EvalError(f"a probe must have at least 2 classes; got labels that are all {numbers[0]}.")
    return Classes(names, names, "the numbers that are the labels")


def _values(split: Any, places: Sequence[int], field: str) -> tuple[str, dict[int, Any]]:
    meta = {p: split.meta(p) for p in places}
    if not field:
        field = next((f for f in FIELDS if any(f in m for m in meta.values())), FIELDS[0])
    missing = [p for p, m in meta.items() if m.get(field) is None]
    if missing:
        has = sorted({key for m in meta.values() for key in m})
        raise EvalError(
            f"every record must have {field!r} in its meta; got {len(missing)} of {len(places)} without, the first "
            f"{split.uid(missing[0])}. Name another with label_field; there are: {', '.join(has) or 'none'}."
        )
    return field, {p: m[field] for p, m in meta.items()}
