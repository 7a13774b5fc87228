"""WebDataset evaluation folders, as CLIP_benchmark writes and reads them.

DIR/test/0.tar, 1.tar, ...   members <key>.jpg (png, webp) and <key>.cls (the class's number), <key>.npy (an array
                             of 0 and 1, one a class) or <key>.txt (a caption a line)
DIR/test/nshards.txt         how many tars there are
DIR/classnames.txt           a class a line, in the order of the numbers
DIR/zeroshot_classification_templates.txt      a prompt a line, with {c} for the class
DIR/dataset_type.txt         "retrieval", "multilabel", or nothing
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from diptych.core.errors import DataError
from diptych.core.record import Record, Segment
from diptych.data.rows import split_of_path
from diptych.data.sources.source import Look, Reject, Source, SourceConfig
from diptych.data.tar_samples import Sample, read_samples

NAMES, TEMPLATES, TYPE = "classnames.txt", "zeroshot_classification_templates.txt", "dataset_type.txt"
COUNT = "nshards.txt"
IMAGES = ("webp", "png", "jpg")
"""The image of a sample is the first of these that it has, as CLIP_benchmark chooses."""


def recognises(found: Look) -> bool:
    """Whether this is a folder with counted tars, or one of its splits."""
    if found.is_file or "tar" not in found.suffixes:
        return False
    return COUNT in found.names or any(found.path.glob(f"*/{COUNT}"))


class ClipBenchmarkConfig(SourceConfig):
    """`path` is the folder, or that of one of its splits. `task` is what the members are for; "": what
    dataset_type.txt says, else classification."""

    path: str
    task: str = ""

    def build(self) -> "ClipBenchmark":
        """The source."""
        return ClipBenchmark(self)


class ClipBenchmark(Source):
    """A record a sample, keyed by split, tar and sample. Meta `label` is the number of the class; of a multi-label set
    the list of the classes' names. `split` is the folder's name."""

    config: ClipBenchmarkConfig

    def __init__(self, config: ClipBenchmarkConfig) -> None:
        self.config = config
        path = Path(config.path)
        self.root = path.parent if (path / COUNT).is_file() else path
        self.splits = [path] if self.root != path else sorted(p.parent for p in path.glob(f"*/{COUNT}"))
        self.task = config.task or _line(self.root / TYPE) or "classification"
        if self.task not in ("classification", "multilabel", "retrieval"):
            raise DataError(
                f"{self.root / TYPE} must say classification, multilabel or retrieval; got {self.task!r}. "
                "Mend it, or set task."
            )
        self.images_only = self.task != "retrieval"
        self.names = _lines(self.root / NAMES)

    def records(self) -> Iterator[Record | Reject]:
        """The samples split by split, tar by tar in the order of their numbers."""
        label = {"classification": "cls", "multilabel": "npy", "retrieval": "txt"}[self.task]
        wanted = frozenset((*IMAGES, label))
        for folder in self.splits:
            for number in range(_count(folder)):
                tar = folder / f"{number}.tar"
                prefix = f"{folder.name}/{number}/"
                if not tar.is_file():
                    message = f"{folder / COUNT} must count tars that are there; {tar.name} is not. Download it again."
                    yield Reject(f"{prefix}rest", message, "file_not_found", str(tar))
                    continue
                for sample in read_samples(tar, prefix, wanted.__contains__, self.max_bytes):
                    yield sample if isinstance(sample, Reject) else self._record(sample, label, folder.name, tar)

    def where(self, key: str) -> str:
        """The tar and the sample in it."""
        return f"{self.root}: {key}"

    def _record(self, sample: Sample, label: str, split: str, tar: Path) -> Record | Reject:
        key, files = sample
        where = f"{tar}#{key}"
        suffix = next((s for s in IMAGES if s in files), "")
        if not suffix or label not in files:
            lacks = f"a .{label}" if suffix else "an image"
            reason = "no_label" if suffix else "no_image"
            return Reject(key, f"a sample must have {lacks}; it has {', '.join(files) or 'nothing'}.", reason, where)
        segments: tuple[Segment, ...] = (Segment("image", files[suffix], suffix, role="image"),)
        meta: dict[str, Any] = {"split": split_of_path([split]) or split}
        try:
            if self.task == "retrieval":
                segments += (Segment("text", tuple(files["txt"].decode().splitlines()), "txt", role="caption"),)
            elif self.task == "multilabel":
                meta["label"] = self._present(files["npy"])
            else:
                meta["label"] = int(files["cls"])
        except (ValueError, UnicodeDecodeError, EOFError) as error:
            message = f"a .{label} must be {_FORMS[label]}; got {error}. Download it again."
            return Reject(key, message, "bad_label", where)
        return Record(key, segments, meta)

    def _present(self, data: bytes) -> list[str]:
        """The names of the classes (numbers, where no file names them) that a .npy says are in the picture."""
        values: Any = np.load(io.BytesIO(data), allow_pickle=False)
        if values.ndim != 1 or (self.names and len(values) != len(self.names)):
            raise ValueError(f"the shape {values.shape} for {len(self.names)} classes")
        return [self.names[i] if self.names else str(i) for i in np.flatnonzero(values > 0).tolist()]


_FORMS = {"cls": "a whole number", "npy": "an array of a number a class", "txt": "UTF-8"}


def _count(folder: Path) -> int:
    text = _line(folder / COUNT)
    if not text.isdecimal():
        raise DataError(f"{folder / COUNT} must hold the number of tars; got {text!r}. Download the folder again.")
    return int(text)


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text("utf-8-sig").rstrip().splitlines()]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} must be a text file; got {error}. Download it again.") from None


def _line(path: Path) -> str:
    return next(iter(_lines(path)), "").lower()
