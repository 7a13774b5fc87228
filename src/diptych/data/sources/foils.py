"""Right captions beside wrong ones: SugarCrepe, VALSE, ARO, and any file of that kind.

    {"0": {"filename": "a.jpg", "caption": "A dog left of a cat.", "negative_caption": "A cat left of a dog."}}
    {"actions_1": {"dataset": "SWiG", "image_file": "a.jpg", "caption": "She reads.", "foil": "She eats.",
                   "mturk": {"caption": 3, "foil": 0}}}
    [{"image_path": "a.jpg", "true_caption": "the dog left of the cat", "false_caption": "the cat left of the dog",
      "bbox_x": 0, "bbox_y": 0, "bbox_w": 90, "bbox_h": 60}]
    [{"image": "a.jpg", "caption_options": ["the right one", "a wrong one", "another"]}]

SugarCrepe: Hsieh et al., arXiv:2306.14610. VALSE: Parcalabescu et al., arXiv:2112.07566. ARO: Yuksekgonul et al.,
arXiv:2210.01936. A .json, a .jsonl, or a folder of some such .json: a test a file, called as the file.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from diptych.core.errors import DataError
from diptych.core.record import Record
from diptych.data.decode import BadImage
from diptych.data.image_folder import LOOKED_AT, find_image_folder
from diptych.data.json_documents import entries, first_row
from diptych.data.json_rows import JsonRow, plain_meta
from diptych.data.located import cut_out
from diptych.data.record_files import printable
from diptych.data.rows import suffix_of, texts_of
from diptych.data.sources.source import Look, Reject, Source, SourceConfig, look, read_file

IMAGES = ("filename", "image_file", "image_path", "image", "file_name", "image_name")
RIGHT = ("true_caption", "correct_caption", "caption")
WRONG = ("negative_caption", "negative_captions", "false_caption", "false_captions", "foil", "foils", "distractors")
OPTIONS = "caption_options"
BOX = ("bbox_x", "bbox_y", "bbox_w", "bbox_h")
MOST_FILES = 64
"""A folder with more .json files than that is no folder of tests."""


def recognises(found: Look) -> bool:
    """Whether the first example has an image, a right caption and wrong ones; of a folder, those of its .json files."""
    if found.is_file:
        return _is_example(first_row(found))
    return bool(_tests(found))


def _is_example(row: dict[str, Any]) -> bool:
    named = any(isinstance(row.get(name), str) for name in IMAGES)
    return named and (OPTIONS in row or (any(n in row for n in RIGHT) and any(n in row for n in WRONG)))


def _tests(found: Look) -> list[str]:
    """The files of a folder that hold examples."""
    names = sorted(n for n in found.names if n.lower().endswith(".json"))
    if len(names) > MOST_FILES:
        return []
    return [n for n in names if _is_example(first_row(Look(found.path / n, True, "json"), lines=False))]


class FoilsConfig(SourceConfig):
    """Images lie in `image_root`, else near the file. `test` is the tests' name; empty: the file's.

    `votes`: VALSE's examples that fewer of its three judges found right are left out by name, as its authors do (0:
    none is). `crop`: of examples with a box only that part is shown, as ARO's authors do.
    """

    path: str
    image_root: str = ""
    test: str = ""
    votes: int = 2
    crop: bool = True

    def build(self) -> "Foils":
        """The source."""
        return Foils(self)


class Foils(Source):
    """A record an example: an image and the right caption; meta `distractors` (the wrong ones), `test`, and `group`
    (ARO's relation or pair of attributes)."""

    config: FoilsConfig

    def __init__(self, config: FoilsConfig) -> None:
        self.config = config
        self.path = Path(config.path)
        self.files = [self.path / n for n in _tests(look(self.path))] if self.path.is_dir() else [self.path]

    def records(self) -> Iterator[Record | Reject]:
        """The examples file by file. Raises DataError where the images' folder cannot be found."""
        for file in self.files:
            prefix = f"{file.stem}/" if self.path.is_dir() else ""
            rows = (row for row in entries(file) if not isinstance(row, Reject))
            first = [_file_names(values) for _, _, values in islice(rows, LOOKED_AT)]
            root = find_image_folder(first, file, self.config.image_root, ("val2017", "val2014"))
            for row in entries(file):
                if isinstance(row, Reject):
                    yield Reject(f"{prefix}{row.key}", row.message, row.reason, row.where)
                else:
                    yield self._record((f"{prefix}{row[0]}", row[1], row[2]), file, root)

    def where(self, key: str) -> str:
        """The example in its file."""
        return f"{self.path}: {key}"

    def _record(self, row: JsonRow, file: Path, root: Path) -> Record | Reject:
        key, where, values = row
        right, wrong = _captions(values)
        if not right or not wrong:
            lacks = "a wrong caption" if right else "a right caption"
            return Reject(key, f"an example must have {lacks}; it has none. Leave it out.", "no_caption", where)
        votes = values.get("mturk")
        judged = votes.get("caption") if isinstance(votes, dict) else None
        if isinstance(judged, int) and judged < self.config.votes:
            message = f"an example must have {self.config.votes} votes for its caption alone; got {judged} (votes=0)."
            return Reject(key, message, "few_votes", where)
        names = _file_names(values)
        if not names:
            return Reject(key, "an example must name its image; it names none. Leave it out.", "no_image", where)
        name = next((n for n in names if (root / n).is_file()), names[0])
        data: bytes | Reject = read_file(root / name, key, self.max_bytes)
        if isinstance(data, Reject):
            return Reject(key, data.message, data.reason, where, data.size)
        format = suffix_of(name)
        box = _box(values) if self.config.crop else None
        if box is not None:
            try:
                data, format = cut_out(data, box), "bmp"
            except DataError as error:
                return Reject(key, str(error), error.reason if isinstance(error, BadImage) else "bad_box", where)
        meta = plain_meta(values, (*IMAGES, *RIGHT, *WRONG, *BOX, OPTIONS))
        if group := _group(values):
            meta["group"] = group
        test = self.config.test or file.stem
        meta |= {"image": printable(name), "test": printable(test), "distractors": list(wrong)}
        return Record.pair(key, data, format, right, meta=meta)


def _captions(values: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(the right caption, the wrong ones); of `caption_options` the first is right."""
    options = values.get(OPTIONS)
    if isinstance(options, list):
        texts = texts_of(options)
        return texts[:1], texts[1:]
    right = next((texts_of(values[n]) for n in RIGHT if n in values), ())
    wrong = tuple(t for n in WRONG if n in values for t in texts_of(values[n]))
    return tuple(t for t in right if t.strip()), tuple(t for t in wrong if t.strip())


def _group(values: dict[str, Any]) -> str:
    """What ARO averages over: the relation, or the pair of attributes."""
    attributes = values.get("attributes")
    if isinstance(attributes, list):
        return printable("_".join(map(str, attributes)))
    return printable(str(values.get("relation_name") or ""))


def _file_names(values: dict[str, Any]) -> tuple[str, ...]:
    """The names that an example's image may have below the root: with its dataset, as it is, and without folders."""
    name = next((values[n] for n in IMAGES if isinstance(values.get(n), str) and values[n]), "")
    if not name:
        return ()
    dataset = values.get("dataset")
    under = (f"{dataset}/{name}",) if isinstance(dataset, str) and dataset else ()
    return tuple(dict.fromkeys((name, *under, name.rpartition("/")[2])))


def _box(values: dict[str, Any]) -> tuple[int, int, int, int] | None:
    """[left, top, right, bottom) of the part that is meant, where the example says one."""
    numbers = [values.get(n) for n in BOX]
    if not all(isinstance(n, (int, float)) for n in numbers):
        return None
    left, top, width, height = (int(n) for n in numbers)  # type: ignore[arg-type]
    return left, top, left + width, top + height
