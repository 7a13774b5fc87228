"""Class names and prompt templates: from the settings, from the dataset's folder, or from the labels themselves."""

import difflib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from diptych.core.errors import EvalError
from diptych.evals.open_data import beside

SINGLE = "a photo of a {}."
BARE = "{}"

NUMBERED = "classnames.txt"
"""The file in which CLIP_benchmark has a class a line, in the order of the numbers by which records name it."""

ALIASES = {"imagenet": "clip"}
"""Template sets that have two names."""


class Classes(NamedTuple):
    """`labels` are what the data's records say, `names` what the prompts say; line i of both is class i."""

    labels: tuple[str, ...]
    names: tuple[str, ...]
    source: str

    def index_of(self, label: Any, uid: str) -> int:
        """Which class a record's label is: its label or name, or a whole number that says a line of the classes.

        Numbers come as texts out of a csv: "3" is line 3 (from 0) unless a class is called so.
        """
        if isinstance(label, str) and label.isdecimal() and label not in (*self.labels, *self.names):
            label = int(label)
        if isinstance(label, int) and not isinstance(label, bool):
            if 0 <= label < len(self.labels):
                return label
            raise EvalError(
                f"a class index must lie in 0..{len(self.labels) - 1}; got {label} in record {uid}. "
                f"Are the classes ({self.source}) complete and in order?"
            )
        for known in (self.labels, self.names):
            if label in known:
                return known.index(label)
        raise EvalError(
            f"every label must be one of the {len(self.labels)} classes ({self.source}); "
            f"got {label!r} in record {uid}. Add it to the classes. They begin: {', '.join(self.labels[:8])}."
        )


def read_classes(wanted: str | Sequence[str], folder: Path | None, labels: Sequence[Any]) -> Classes:
    """The classes from a tuple of names, a file, that in the folder (`classes_file`), or the distinct `labels`, sorted.

    A file has a class a line: its name, or ``label<TAB>name`` where the records say another than the prompts.
    """
    if not isinstance(wanted, str):
        return _checked([str(x) for x in wanted], "the settings")
    path = Path(wanted) if wanted else classes_file(folder)
    if path is not None and path.name == NUMBERED:
        return _numbered(_lines(path, "classes", blank=True), path.name)
    if path is not None:
        return _checked(_lines(path, "classes"), str(path.name))
    strings = sorted({x for x in labels if isinstance(x, str)})
    if not strings:
        raise EvalError(
            "zero_shot must know the classes' names; got records with class indices only. "
            "Give classes=FILE with a name a line, or put classes.txt into the dataset's folder."
        )
    return _checked([f"{x}\t{x.replace('_', ' ')}" for x in strings], "the distinct labels of the split")


def classes_file(folder: Path | None) -> Path | None:
    """The file of classes that lies in the folder of the data: classes.txt, or CLIP_benchmark's classnames.txt."""
    return beside(folder, "classes.txt", NUMBERED)


def read_templates(wanted: str | Sequence[str], folder: Path | None) -> tuple[tuple[str, ...], str]:
    """Prompt templates and where they are from: a tuple, the name of a set, a file, or, for "", the folder's
    templates.txt if there is one (or CLIP_benchmark's, with {c} for the class) and else "clip".

    Sets by name: "clip" (80, also "imagenet"), "simple" (7), "plain" (the bare name), and those of the other 26 data
    sets of Radford et al., arXiv:2103.00020, as the authors published them (`template_sets`).
    """
    if not isinstance(wanted, str):
        return _check_templates(tuple(wanted), "the settings"), "the settings"
    if not wanted and (path := beside(folder, "templates.txt", "zeroshot_classification_templates.txt")) is not None:
        lines = _lines(path, "templates")
        own = path.name == "templates.txt"
        return _check_templates(tuple(x if own else x.replace("{c}", "{}") for x in lines), path.name), path.name
    packaged = resources.files("diptych.evals").joinpath("templates", f"{ALIASES.get(wanted, wanted) or 'clip'}.txt")
    if "/" not in wanted and packaged.is_file():
        return _check_templates(tuple(packaged.read_text("utf-8").splitlines()), wanted), wanted or "clip"
    return _check_templates(tuple(_lines(Path(wanted), "templates")), wanted), wanted


def template_sets() -> tuple[str, ...]:
    """The names of the packaged template sets."""
    files = resources.files("diptych.evals").joinpath("templates").iterdir()
    return tuple(sorted({f.name.removesuffix(".txt") for f in files if f.name.endswith(".txt")} | set(ALIASES)))


def fill(template: str, name: str) -> str:
    """The prompt of a class."""
    return template.replace("{}", name)


def _lines(path: Path, what: str, blank: bool = False) -> list[str]:
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        extra = ' "clip", "simple", "plain", another set by name, or' if what == "templates" else ""
        close = difflib.get_close_matches(str(path), template_sets(), n=1) if extra else []
        hint = f" Did you mean {close[0]!r}?" if close else f" Sets: {', '.join(template_sets())}." if extra else ""
        raise EvalError(
            f"{what} must be{extra} a text file with one a line; got {str(path)!r} ({reason}).{hint}"
        ) from None
    return [line.strip() for line in text.rstrip().splitlines() if blank or line.strip()]


def _numbered(names: list[str], source: str) -> Classes:
    """Classes that records name by their number. Two may share a name, as ImageNet's missiles do: the second can then
    never be told from the first, here as in CLIP_benchmark."""
    known = [n if names.count(n) == 1 else f"{n} ({i})" for i, n in enumerate(names)]
    return _checked([f"{label}\t{name}" for label, name in zip(known, names, strict=True)], source, shared_names=True)


def _checked(lines: list[str], source: str, shared_names: bool = False) -> Classes:
    pairs = [line.split("\t", 1) if "\t" in line else [line, line] for line in lines]
    labels, names = tuple(p[0].strip() for p in pairs), tuple(p[1].strip() for p in pairs)
    if len(labels) < 2:
        raise EvalError(
            f"zero_shot must have at least 2 classes; got {len(labels)} from {source}. "
            "Name the classes with classes=FILE, one a line."
        )
    for what, values in (("label", labels), ("name", names)):
        twice = sorted({v for v in values if values.count(v) > 1})
        if twice and not (shared_names and what == "name"):
            raise EvalError(
                f"each class must have a {what} of its own; got {twice[0]!r} twice in {source}. "
                "Write a longer name (crane bird, crane machine), or label<TAB>name."
            )
    if not all(names):
        raise EvalError(f"each class must have a name; got an empty one in {source}.")
    return Classes(labels, names, source)


def _check_templates(templates: tuple[str, ...], source: str) -> tuple[str, ...]:
    if not templates:
        raise EvalError(f"templates must hold at least one prompt; got none in {source}. Write one a line, with {{}}.")
    for line, template in enumerate(templates, 1):
        if template.count("{}") != 1:
            raise EvalError(
                f"a template must hold {{}} once, where the class name goes; got {template!r} (line {line}, {source}). "
                'Write for example "a photo of a {}."'
            )
    return templates
