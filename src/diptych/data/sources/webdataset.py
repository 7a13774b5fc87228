"""WebDataset tars: img2dataset's, another dataset of ours, anyone's. Read as streams: nothing is ever extracted,
unpickled or run."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diptych.core.errors import DataError
from diptych.core.record import Record
from diptych.data.record_files import is_read, record_from_files
from diptych.data.rows import split_of_path
from diptych.data.sources.source import IMAGE_SUFFIXES, SPLIT_NAMES, Look, Reject, Source, SourceConfig, is_taken
from diptych.data.tar_samples import read_samples

GENERAL = True
TARS = ("tar", "tgz")


def recognises(found: Look) -> bool:
    """Whether this is a tar, a brace pattern of tars, or a folder with some."""
    text = str(found.path)
    if "{" in text and not found.is_file:
        return text.endswith(".tar")
    return found.suffix in TARS if found.is_file else bool(found.suffixes & set(TARS)) and not is_taken(found)


class WebdatasetConfig(SourceConfig):
    """`path` is a tar, a folder of tars, or a pattern like ``data/{00000..00099}.tar``. Where tars lie in
    several folders called train, val or test, these become splits."""

    path: str
    images_only: bool = False

    def build(self) -> "Webdataset":
        """The source."""
        return Webdataset(self)


class Webdataset(Source):
    """A record a sample, tar by tar. Members beside image, audio, video, txt and json are left alone."""

    config: WebdatasetConfig

    def __init__(self, config: WebdatasetConfig) -> None:
        self.config = config
        self.images_only = config.images_only
        path = Path(config.path)
        if path.is_dir():
            self.root = path
            self.tars = sorted(p for p in path.rglob("*") if p.suffix[1:] in TARS and not p.name.startswith("."))
        else:
            self.tars = [Path(p) for p in expand_braces(config.path)]
            self.root = self.tars[0].parent
        self.ours = (self.root / "dataset.json").is_file()  # its keys are unique over all its tars already
        lost = next((t for t in self.tars if not t.is_file()), None)
        if lost is not None:
            raise DataError(f"a tar must be there; {lost} is not. Check the range of {config.path}.")

    def records(self) -> Iterator[Record | Reject]:
        """The samples in their order; a damaged tar is rejected by name, and the next one goes on."""
        splits = {t: split_of_path(self._inner(t).split("/")[:-1]) for t in self.tars}
        several = len({s for s in splits.values() if s}) > 1
        for tar in self.tars:
            yield from self._read(tar, splits[tar] if several else None)

    def where(self, key: str) -> str:
        """The tar and the sample in it."""
        return f"{self.root}: {key}"

    def _inner(self, tar: Path) -> str:
        inner = tar.relative_to(self.root) if tar.is_relative_to(self.root) else Path(tar.name)
        return inner.with_suffix("").as_posix()

    def _read(self, tar: Path, split: str | None) -> Iterator[Record | Reject]:
        prefix = "" if self.ours else f"{self._inner(tar)}/"
        for sample in read_samples(tar, prefix, _is_wanted, self.max_bytes):
            yield sample if isinstance(sample, Reject) else self._record(sample[0], tar, sample[1], split)

    def _record(self, key: str, tar: Path, files: dict[str, bytes], split: str | None) -> Record | Reject:
        where = f"{tar}#{key}"
        odd = next((s for s in files if not is_read(s)), None)
        if (
            odd is not None and "jpg" not in files
        ):  # an image that webdataset tars seldom hold (gif, bmp): the decoder will look what it is
            files = {("jpg" if s == odd else s): data for s, data in files.items()}
        try:
            record = record_from_files(key, files, str(tar))
        except DataError as error:
            return Reject(key, str(error), "bad_json", where)
        if not any(isinstance(s.payload, bytes) for s in record.segments):
            return Reject(key, "a sample must hold an image, a sound or a clip; it holds none.", "no_image", where)
        meta = _plain(record.meta)
        declared = str(meta.get("split", "")).lower()
        if split is not None and declared not in SPLIT_NAMES:
            meta["split"] = split
        return Record(record.key, record.segments, meta)


def expand_braces(pattern: str) -> list[str]:
    """``a/{000..002}.tar`` -> three names; ``{x,y}`` too."""
    match = re.search(r"\{([^{}]*)\}", pattern)
    if match is None:
        return [pattern]
    ends = re.fullmatch(r"(\d+)\.\.(\d+)", match[1])
    if ends:
        middle = [f"{n:0{len(ends[1])}d}" for n in range(int(ends[1]), int(ends[2]) + 1)]
    else:
        middle = match[1].split(",")
    if not middle or len(middle) > 1_000_000:
        raise DataError(f"a range must count upwards, and to less than a million; got {match[0]} in {pattern}.")
    return [p for m in middle for p in expand_braces(pattern[: match.start()] + m + pattern[match.end() :])]


def _is_wanted(suffix: str) -> bool:
    return is_read(suffix) or suffix.rpartition(".")[2] in IMAGE_SUFFIXES


def _plain(meta: dict[str, Any]) -> dict[str, Any]:
    """Meta without img2dataset's empty and bulky values."""
    return {k: v for k, v in meta.items() if v is not None and k not in ("exif",)}
