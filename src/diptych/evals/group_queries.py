"""Which texts a split's images are searched with, to see whose images come first."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diptych.core.errors import EvalError
from diptych.evals.groups import Groups
from diptych.evals.prompts import SINGLE, fill


def read_queries(
    wanted: str | Sequence[str], split: Any, places: Sequence[int], groups: Groups, classes: Sequence[str], most: int
) -> tuple[tuple[str, ...], str]:
    """The queries and where they are from: the settings, a file with one a line, the classes, or the captions.

    Of the captions: the `most` that the most images carry, those first that images of two groups or more carry (what
    only one group's images are called finds that group rightly). None that names a group.
    """
    if not isinstance(wanted, str):
        return _some(tuple(wanted), "the settings"), "the settings"
    if wanted:
        try:
            lines = Path(wanted).read_text("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise EvalError(f"queries must be a text file with one a line; got {wanted!r} ({reason}).") from None
        return _some(tuple(line.strip() for line in lines if line.strip()), wanted), Path(wanted).name
    if classes:
        return tuple(fill(SINGLE, name) for name in classes)[:most], "the class names"
    count: Counter[str] = Counter()
    seen: defaultdict[str, set[int]] = defaultdict(set)
    for place, group in zip(places, groups.of.tolist(), strict=True):
        for caption in set(split.captions(place)) if group >= 0 else ():
            count[caption] += 1
            seen[caption].add(group)
    neutral = [text for text in count if not names_a_group(text, groups.names)]
    order = sorted(neutral, key=lambda text: (-min(2, len(seen[text])), -count[text], text))
    return tuple(order[:most]), "the captions that most images of several groups carry"


def names_a_group(text: str, names: Sequence[str]) -> bool:
    """Whether a text holds the name of a group as words, whatever their case."""
    words = _padded(text)
    return any(_padded(name) in words for name in names)


def _padded(text: str) -> str:
    return " " + " ".join(re.findall(r"\w+", text.lower())) + " "


def _some(queries: tuple[str, ...], source: str) -> tuple[str, ...]:
    if not queries:
        raise EvalError(f"queries must be at least one; got none from {source}. Leave them out for the usual ones.")
    return queries
