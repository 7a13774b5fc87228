"""A folder of images with their captions beside them, or in the names of their folders."""

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from diptych.core.errors import DataError
from diptych.core.record import Record, Segment
from diptych.data.record_files import printable
from diptych.data.rows import CAPTION_COLUMNS, split_of_path, suffix_of, texts_of
from diptych.data.sources.source import (
    IMAGE_SUFFIXES,
    SPLIT_NAMES,
    Look,
    Reject,
    Source,
    SourceConfig,
    is_taken,
    look,
    read_file,
)

GENERAL = True
SIDECARS = ("txt", "caption", "json")
MAX_SIDECAR_BYTES = 1 << 20
MOST_TABLES = 16
"""Files of a folder that are looked into, whether they hold the captions of all."""
NO_CAPTIONS = frozenset({"readme", "license", "licence", "notice", "requirements", "classes", "labels", "dataset_info"})
"""Text files that no one means as the caption of a lost image."""


def recognises(found: Look) -> bool:
    """Whether this is a folder of image files and nothing else that describes them."""
    described = {"metadata.csv", "metadata.jsonl", "state.json", "dataset_dict.json", "dataset.json"} & found.names
    return (
        not found.is_file
        and bool(found.suffixes & IMAGE_SUFFIXES)
        and not described
        and not found.suffixes & {"tar", "parquet", "arrow"}
        and not is_taken(found)
    )


class FolderConfig(SourceConfig):
    """`captions`: "files" (``a.jpg`` with ``a.txt``, ``a.caption`` or ``a.json``), "folders" (the name of the folder
    that an image lies in), or "auto": files if any image has one, else folders.

    A txt is one caption, or one a line with `caption_lines`. A json is a list of captions or an object with
    ``captions`` (or ``caption``, ``text`` ...), ``weights`` and anything else, which becomes meta.
    """

    path: str
    captions: Literal["auto", "files", "folders"] = "auto"
    caption_lines: bool = False
    images_only: bool = False

    def build(self) -> "Folder":
        """The source."""
        return Folder(self)


class Folder(Source):
    """Every image file below a folder in the order of its path. Subfolders train, val and test become splits."""

    config: FolderConfig

    def __init__(self, config: FolderConfig) -> None:
        self.config = config
        self.images_only = config.images_only
        self.root = Path(config.path)

    def records(self) -> Iterator[Record | Reject]:
        """One record an image; an image that cannot be read, or a caption without its image, is rejected."""
        by_folder = self._captions_are_folders()
        tops = {
            SPLIT_NAMES[p.name.lower()] for p in self.root.iterdir() if p.is_dir() and p.name.lower() in SPLIT_NAMES
        }
        for inner, names in _folders(self.root):
            for stem, group in itertools.groupby(names, _stem):
                files = list(group)
                images = [f for f in files if suffix_of(f) in IMAGE_SUFFIXES]
                for image in images:
                    key = f"{inner}{stem}" if len(images) == 1 else f"{inner}{image}"
                    yield self._record(key, inner, image, files, by_folder, len(tops) > 1)
                if not images and not by_folder:
                    yield from self._lost_captions(inner, stem, files)

    def where(self, key: str) -> str:
        """The path of the file, without its ending."""
        return str(self.root / key)

    def _record(
        self, key: str, inner: str, image: str, files: list[str], by_folder: bool, splits: bool
    ) -> Record | Reject:
        where = str(self.root / inner / image)
        data = read_file(self.root / inner / image, key, self.max_bytes)
        if isinstance(data, Reject):
            return data
        meta: dict[str, Any] = {"image": printable(f"{inner}{image}")}
        split = split_of_path(inner.split("/")[:1]) if splits else None
        if split is not None:
            meta["split"] = split
        weights: tuple[float, ...] | None = None
        captions: tuple[str, ...]
        if by_folder:
            folder = inner.rstrip("/").rpartition("/")[2]
            named = folder and not (splits and inner.count("/") == 1 and folder.lower() in SPLIT_NAMES)
            captions = (folder.replace("_", " ").replace("-", " "),) if named else ()
            if named:
                meta["label"] = folder
        else:
            beside = [f for f in files if suffix_of(f) in SIDECARS]
            read = self._sidecars(key, where, inner, beside)
            if isinstance(read, Reject):
                return read
            captions, weights, more = read
            meta = {**more, **meta}
        segments: tuple[Segment, ...] = (Segment("image", data, suffix_of(image), role="image"),)
        if captions:
            segments += (Segment("text", captions, "txt", role="caption", weights=weights),)
        return Record(key, segments, meta)

    def _sidecars(
        self, key: str, where: str, inner: str, names: list[str]
    ) -> tuple[tuple[str, ...], tuple[float, ...] | None, dict[str, Any]] | Reject:
        captions: tuple[str, ...] = ()
        weights, meta = None, dict[str, Any]()
        for name in sorted(names, key=lambda n: SIDECARS.index(suffix_of(n))):
            raw = read_file(self.root / inner / name, key, MAX_SIDECAR_BYTES)
            if isinstance(raw, Reject):
                return Reject(key, f"a caption must be readable; {name}: {raw.message}", "bad_caption_file", where)
            try:
                text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
                value = json.loads(text) if suffix_of(name) == "json" else text
            except UnicodeDecodeError:
                return Reject(key, f"a caption must be UTF-8; {name} is not. Save it as UTF-8.", "bad_text", where)
            except (ValueError, RecursionError) as error:
                return Reject(key, f"a .json must be JSON; {name} is not ({error}). Mend it.", "bad_json", where)
            if suffix_of(name) != "json":
                captions += tuple(value.splitlines()) if self.config.caption_lines else (" ".join(value.split()),)
                continue
            if not isinstance(value, dict):
                captions += texts_of(value)
                continue
            column = next((c for c in CAPTION_COLUMNS if c in value), None)
            captions += texts_of(value[column]) if column else ()
            given = value.get("weights")
            if isinstance(given, list) and all(isinstance(w, (int, float)) for w in given):
                weights = tuple(map(float, given))
            meta |= {k: v for k, v in value.items() if k not in (column, "weights")}
        return captions, weights, meta

    def _lost_captions(self, inner: str, stem: str, files: list[str]) -> Iterator[Reject]:
        for name in files:
            if suffix_of(name) in ("txt", "caption") and stem.lower() not in NO_CAPTIONS:
                message = f"a caption must have an image beside it; {name} has none. Add {stem}.jpg, or remove it."
                yield Reject(f"{inner}{name}", message, "no_image", str(self.root / inner / name))

    def _captions_are_folders(self) -> bool:
        if self.config.captions != "auto" or self.images_only:
            return self.config.captions == "folders"
        nested, tables = False, list[str]()
        for inner, names in _folders(self.root):
            stems = {n.rpartition(".")[0] for n in names if suffix_of(n) in IMAGE_SUFFIXES}
            if any(n.rpartition(".")[0] in stems for n in names if suffix_of(n) in SIDECARS):
                return False
            nested = nested or bool(inner and stems)
            tables += [f"{inner}{n}" for n in names if suffix_of(n) in ("csv", "tsv", "jsonl", "parquet")]
            some = [n for n in names if suffix_of(n) == "json"][:MOST_TABLES]
            tables += [f"{inner}{n}" for n in some if is_taken(look(self.root / inner / n))]
        if tables:
            raise DataError(
                f"{self.root} must hold a caption beside each image; it holds none, but {tables[0]}. "
                f"If the captions are in it, take {self.root / tables[0]} instead; else set captions=folders."
            )
        return nested


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def _folders(root: Path) -> Iterator[tuple[str, list[str]]]:
    """(inner path ending in "/", or "", and its file names by their stems) of each folder below `root`, depth first.
    Hidden names are skipped; links are followed, but never round in a circle."""
    waiting: list[tuple[str, tuple[str, ...]]] = [("", ())]
    while waiting:
        inner, above = waiting.pop()
        here = os.path.realpath(root / inner)
        if here in above:
            continue
        files, below = list[str](), list[str]()
        try:
            with os.scandir(root / inner) as scan:
                for entry in scan:
                    if not entry.name.startswith((".", "__MACOSX")):
                        (below if entry.is_dir() else files).append(entry.name)
        except OSError as error:
            raise DataError(f"{root / inner} must be readable; got {error.strerror}. Check its permissions.") from None
        files.sort(key=lambda name: (_stem(name), name))
        yield inner, files
        waiting += [(f"{inner}{name}/", (*above, here)) for name in sorted(below, reverse=True)]
