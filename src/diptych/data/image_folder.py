"""Where the images are that an annotation file names: in the folder that the user gives, or in one of the usual ones
near the file. Found once, by looking for the first few; a folder that is missing is one error, not a reject a row."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from diptych.core.errors import DataError
from diptych.core.progress import say

LOOKED_AT = 1000
"""Images that are looked for at most, since a folder may hold only some of them: one that is there tells it."""
MOST_FOLDERS = 200
_USUAL = ("images", "Images", "imgs", "img")


def find_image_folder(
    names: Iterable[Sequence[str]], near: Path, given: str = "", hints: Sequence[str] = (), option: str = "image_root"
) -> Path:
    """The folder in which an image of `names` lies (each has one or several names that it may have).

    `given` by the user: that folder alone is looked in. Else: that of the annotation file `near`, `hints` in it, the
    usual ones and its other subfolders; then `hints` and the usual ones beside it, but no other: a neighbour's picture
    of the same name would be a wrong one. The folder with the most of them is taken, and said. Raises DataError that
    says where it looked.
    """
    wanted = [tuple(n for n in some if n) for some in names]
    if given:
        folder = Path(given).expanduser()
        if not folder.is_dir():
            raise DataError(f"{option} must be a folder; got {given}, which is none. Check the path.")
        looked = [folder]
    else:
        looked = _candidates(near if near.is_dir() else near.parent, hints)
    if not wanted:
        return looked[0]
    hits = [sum(any(_is_file(folder / name) for name in some) for some in wanted) for folder in looked]
    if max(hits):
        found = looked[hits.index(max(hits))]
        if found != looked[0]:
            say(f"The images of {near} are read from {found} ({option}=DIR names another folder).")
        return found
    first = next((some[0] for some in wanted if some), "")
    shown = ", ".join(str(f) for f in looked[:6]) + (f" and {len(looked) - 6} more" if len(looked) > 6 else "")
    raise DataError(
        f"the images of {near} must be in a folder; got none of the first {len(wanted):,} ({first!r} ...) in {shown}. "
        f"Say where they are: {option}=DIR"
    )


def _candidates(home: Path, hints: Sequence[str]) -> list[Path]:
    named = [*hints, *(f"images/{h}" for h in hints), *_USUAL]
    inside = [home, *(home / name for name in (*named, *_subfolders(home)[:MOST_FOLDERS]))]
    beside = [home.parent / name for name in named] if home.parent != home else []
    return list(dict.fromkeys(f for f in (*inside, *beside) if f.is_dir()))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or no name at all
        return False


def _subfolders(base: Path) -> list[str]:
    try:
        with os.scandir(base) as scan:
            return sorted(e.name for e in scan if e.is_dir() and not e.name.startswith("."))
    except OSError:
        return []
