"""A database of records with image paths, such as studies and their reports: SQLite, or csv and parquet, joined or not.

    diptych collect table hospital.sqlite table=studies image_columns=frontal,lateral text_columns=findings,impression
    diptych collect table reports.csv join=images.csv on=study_id id_column=study_id group_column=patient_id

What belongs to one patient (or shop, or author) must not be parted: the split is drawn from a hash of the group.
"""

import itertools
import json
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from diptych.core.errors import ConfigError, DataError
from diptych.core.record import Record, Segment
from diptych.core.seeds import fold
from diptych.data.collect.collector import Collector, CollectorConfig
from diptych.data.database import Database, Unread, as_database, quoted
from diptych.data.face_boxes import carried
from diptych.data.files_below import is_inside
from diptych.data.record_files import printable
from diptych.data.rows import CAPTION_COLUMNS, IMAGE_COLUMNS, MAX_META_CHARACTERS, image_bytes, suffix_of, texts_of
from diptych.data.sources.source import Reject

TEXT_TABLES = (".csv", ".tsv", ".parquet", ".pq")
GROUP_COLUMNS = ("patient_id", "patient", "patientid", "subject_id", "subject", "group_id", "group")
DATE_COLUMNS = ("date", "study_date", "studydate", "datetime", "created_at", "created")


class TableConfig(CollectorConfig):
    """`path` is a SQLite file, or a csv, tsv or parquet. `query` is a SELECT over it; else the whole of `table` is read
    (of a text table: its file's name without ending), `join`ed to another table (or file) where `on` (a column of both,
    or "left=right") is equal, every row of the first being kept. Neighbouring rows with one id become one record.

    image_columns  one or several by commas; a cell is a path below `image_root` (else the table's folder), the bytes,
                   a JSON list of paths, or several divided by `separator`
    text_columns   one or several: `texts` says whether they are alternatives or, each after its name, one text
    group_column   what must not be parted: a share `val_groups` of the groups is held out (`test_groups` too). Found
                   where it is called as a patient or a subject is; "none": rows may be parted
    date_column    kept in the meta;  meta_columns: what else is ("*": all; nothing by default, as databases hold names)
    max_seconds    of SQL;  max_rows, max_images (of a record), max_text (characters): what is more is rejected
    """

    query: str = ""
    table: str = ""
    join: str = ""
    on: str = ""
    image_columns: str = ""
    text_columns: str = ""
    texts: Literal["alternatives", "joined"] = "alternatives"
    id_column: str = ""
    group_column: str = ""
    date_column: str = ""
    meta_columns: str = ""
    image_root: str = ""
    separator: str = ""
    val_groups: Annotated[float, Field(ge=0, lt=1)] = 0.02
    test_groups: Annotated[float, Field(ge=0, lt=1)] = 0.0
    max_seconds: Annotated[float, Field(gt=0)] = 600.0
    max_rows: Annotated[int, Field(ge=1)] = 100_000_000
    max_images: Annotated[int, Field(ge=1)] = 32
    max_text: Annotated[int, Field(ge=1)] = 100_000

    def build(self) -> "Table":
        """The collector."""
        return Table(self)


class _Columns:
    """What each column of the answer is for."""

    def __init__(self, names: Sequence[str], config: TableConfig, where: str) -> None:
        self._names, self._where = names, where
        self.images = self._several(config.image_columns, "image_columns", IMAGE_COLUMNS)
        self.texts = self._several(config.text_columns, "text_columns", CAPTION_COLUMNS)
        self.id = self._several(config.id_column, "id_column")[0] if config.id_column else ""
        asked = "" if config.group_column == "none" else config.group_column
        guess = () if config.group_column else GROUP_COLUMNS
        self.group = next(iter(self._several(asked, "group_column", guess, False)), "")
        self.date = next(iter(self._several(config.date_column, "date_column", DATE_COLUMNS, False)), "")
        used = {*self.images, *self.texts, self.id, self.group, self.date}
        free = [n for n in names if n not in used]
        self.meta = (
            free if config.meta_columns == "*" else self._several(config.meta_columns, "meta_columns", (), False)
        )

    def _several(self, asked: str, option: str, usual: Sequence[str] = (), needed: bool = True) -> list[str]:
        wanted = [c.strip() for c in asked.split(",") if c.strip()]
        for name in wanted:
            if name not in self._names:
                close = get_close_matches(name, self._names, n=1)
                hint = f"Did you mean {close[0]!r}?" if close else f"It has: {', '.join(self._names)}."
                raise DataError(f"{option} must be columns of {self._where}; got {name!r}. {hint}")
        by_lower = {n.strip().lower(): n for n in self._names}
        found = wanted or [by_lower[c] for c in usual if c in by_lower][:1]
        if needed and not found:
            raise DataError(f"{self._where} must have {option}; got {', '.join(self._names)}. Name them: {option}=A,B")
        return found


_Row = dict[str, Any]


class Table(Collector):
    """A record an id, in the order of the answer. Meta: the group's hash (never the group itself) and its split, the
    date, and the columns that were asked for."""

    config: TableConfig

    def __init__(self, config: TableConfig) -> None:
        super().__init__(config)
        self.path = Path(config.path)
        self.root = Path(config.image_root).expanduser() if config.image_root else self.path.parent
        if bool(config.join) != bool(config.on):
            raise ConfigError(f"join and on must both be set; got {config.join!r} and {config.on!r}. Add on=COLUMN.")
        if config.query and (config.table or config.join):
            raise ConfigError("a query must stand alone; got one beside table or join. Write them into it.")
        if config.val_groups + config.test_groups >= 1:
            raise ConfigError(
                f"val_groups and test_groups must leave some to train on; got {config.val_groups} and "
                f"{config.test_groups}. Lower them."
            )

    def records(self) -> Iterator[Record | Reject]:
        """The records. Raises DataError where there is no such table, column or folder."""
        if not self.root.is_dir():
            raise DataError(f"image_root must be a folder; got {self.root}, which is none. Check the path.")
        with tempfile.TemporaryDirectory(prefix="diptych-") as folder:
            path = self.path
            if path.suffix.lower() in TEXT_TABLES:
                path = Path(folder) / "tables.sqlite"
                files, on = self._files(), self.config.on.rpartition("=")[2].strip()
                yield from as_database(files, path, (list(files)[-1], on) if on else None)
            with self._opened(path) as database:
                yield from self._answer(database)

    def where(self, key: str) -> str:
        """The record in the database."""
        return f"{self.path} record {key}"

    def _files(self) -> dict[str, Path]:
        files = {self.path.stem: self.path}
        if self.config.join:
            other = self.path.parent / self.config.join
            if other.stem == self.path.stem:
                raise DataError(f"joined files must have names of their own; got {self.path} and {other}. Rename one.")
            files[other.stem] = other
        return files

    @contextmanager
    def _opened(self, path: Path) -> Iterator[Database]:
        database = Database(path, self.config.max_seconds, max(self.max_bytes, 1 << 20))
        try:
            yield database
        finally:
            database.close()

    def _answer(self, database: Database) -> Iterator[Record | Reject]:
        try:
            names, rows = database.ask(self.config.query or self._select(database))
            columns = _Columns(names, self.config, str(self.path))
        except Unread as error:
            yield Reject("rest", str(error), error.reason, str(self.path))
            return
        numbered = self._numbered(rows, names)

        def same(item: Reject | tuple[int, _Row]) -> object:
            value = None if isinstance(item, Reject) or not columns.id else item[1][columns.id]
            return value if value is not None else object()

        for _, members in itertools.groupby(numbered, same):
            first = next(members)
            if isinstance(first, Reject):
                yield first
                continue
            group = itertools.chain([first], members)  # noqa: B031 (once only)
            yield self._record(first, columns, (item[1] for item in group if not isinstance(item, Reject)))

    def _numbered(self, rows: Iterator[tuple[Any, ...]], names: list[str]) -> Iterator[Reject | tuple[int, _Row]]:
        """The rows with their numbers; where they end too early, why."""
        where = str(self.path)
        try:
            for number, row in enumerate(rows, 1):
                if number > self.config.max_rows:
                    message = f"a table must have at most {self.config.max_rows:,} rows; got more. Raise max_rows."
                    yield Reject("rest", message, "row_limit", where)
                    return
                yield number, dict(zip(names, row, strict=True))
        except Unread as error:
            yield Reject("rest", str(error), error.reason, where)

    def _select(self, database: Database) -> str:
        """The SELECT that `table`, `join` and `on` mean."""
        config, text = self.config, self.path.suffix.lower() in TEXT_TABLES
        table = config.table or (self.path.stem if text else "")
        if not table and len(database.tables) == 1:
            table = database.tables[0]
        joined = Path(config.join).stem if text else config.join
        for name, option in ((table, "table"), (joined, "join")):
            if name not in database.tables and (name or option == "table"):
                there = ", ".join(database.tables[:20]) or "none"
                raise DataError(f"{option} must be one of {self.path}'s tables: {there}; got {name or 'none'!r}.")
        if not joined:
            return f"SELECT * FROM {quoted(table)}"
        left, _, right = config.on.partition("=")
        left, right = left.strip(), (right or left).strip()
        mine, others = database.columns(table), database.columns(joined)
        for name, known in ((left, mine), (right, others)):
            if name not in known:
                raise DataError(f"on must be a column of both tables; got {name!r}, and there is {', '.join(known)}.")
        lower = {n.lower() for n in mine}
        more = "".join(f", b.{quoted(n)}" for n in others if n.lower() not in lower)
        one, other = f"a.{quoted(left)}", f"b.{quoted(right)}"
        if text:  # a csv holds "7" where a parquet holds 7
            one, other = f"CAST({one} AS TEXT)", f"CAST({other} AS TEXT)"
        return f"SELECT a.*{more} FROM {quoted(table)} AS a LEFT JOIN {quoted(joined)} AS b ON {one} = {other}"

    def _record(self, head: tuple[int, _Row], columns: _Columns, rows: Iterator[_Row]) -> Record | Reject:
        """The record of the rows of one id, of which `head` is the first with its number."""
        number, first = head
        key = printable(str(first[columns.id])) if columns.id and first[columns.id] is not None else f"{number:09d}"
        where = f"{self.path} row {number}"
        cells, texts = list[Any](), list[tuple[str, ...]]()
        for row in rows:
            if len(cells) <= self.config.max_images:  # what is more is only counted, not held
                cells += [c for name in columns.images for c in self._cells(row[name]) if c not in cells]
                said = self._texts(row, columns)
                texts += [said] if said not in texts else []
        if len(cells) > self.config.max_images:
            message = f"a record must have at most {self.config.max_images} images; {key} has more. Raise max_images."
            return Reject(key, message, "too_many_images", where)
        alternatives = tuple(dict.fromkeys(t for some in texts for t in some))
        if sum(map(len, alternatives)) > self.config.max_text:
            message = f"a record's text must have at most {self.config.max_text:,} characters; {key}'s has more."
            return Reject(key, message, "text_too_long", where)
        meta = self._meta(first, columns)
        if isinstance(meta, str):
            return Reject(key, meta, "no_group", where)
        images = self._images(cells, key, where)
        if isinstance(images, Reject):
            return images
        segments = images + ((Segment("text", alternatives, "txt", role="caption"),) if alternatives else ())
        return self.from_here(Record(key, segments, meta), str(self.path), f"row {number}", "row")

    def _cells(self, value: Any) -> list[Any]:
        """The images that a cell names."""
        if not isinstance(value, str):
            return [] if value is None else [value]
        if value.startswith("[") and value.rstrip().endswith("]"):
            try:
                listed = json.loads(value)
            except (ValueError, RecursionError):
                return [value]
            return [v for v in listed if isinstance(v, str)]
        parts = value.split(self.config.separator) if self.config.separator else [value]
        return [p.strip() for p in parts if p.strip()]

    def _texts(self, row: _Row, columns: _Columns) -> tuple[str, ...]:
        said = {name: [t for t in texts_of(row[name]) if t.strip()] for name in columns.texts}
        if self.config.texts == "alternatives":
            return tuple(t for some in said.values() for t in some)
        parts = [f"{n.replace('_', ' ').capitalize()}: {' '.join(some).strip()}" for n, some in said.items() if some]
        return ("\n".join(parts),) if parts else ()

    def _images(self, cells: list[Any], key: str, where: str) -> tuple[Segment, ...] | Reject:
        """Every image, or why one of them cannot be had: a study without one of its pictures is another study."""
        if not cells:
            return Reject(key, "a record must name an image; it names none.", "no_image", where)
        home = os.path.realpath(self.root)
        found = list[Segment]()
        for cell in cells:
            # what a cell names, as `image_bytes` will read it; a link (https://...) is inside, and rejected there
            if isinstance(cell, str) and not is_inside(self.root / cell.strip().removeprefix("file://"), home):
                message = (
                    f"an image must lie below {self.root}; got {cell[:200]!r}. Set image_root to where they all are."
                )
                return Reject(key, message, "outside_root", where)
            data = image_bytes(cell, key, where, self.root, self.max_bytes)
            if isinstance(data, Reject):
                return data
            found.append(Segment("image", data[0], suffix_of(data[1]), role="image"))
        return tuple(found)

    def _meta(self, row: _Row, columns: _Columns) -> dict[str, Any] | str:
        """The meta, or what is wrong with it."""
        meta: dict[str, Any] = {}
        for name in columns.meta:
            value = row[name]
            plain = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
            if plain or (isinstance(value, str) and 0 < len(value) <= MAX_META_CHARACTERS):
                meta[name] = value
            elif (boxes := carried(value)) is not None:
                meta[name] = boxes
        if columns.date and row[columns.date] is not None:
            meta["date"] = str(row[columns.date])[:40]
        if columns.group:
            group = row[columns.group]
            if group is None or not str(group).strip():
                return f"a record must have a {columns.group}, by which the splits are drawn; it has none. Fill it in."
            drawn = fold("group", printable(str(group).strip()))
            meta["group"], meta["split"] = f"{drawn:016x}", self._split(drawn / 2**63)
        return meta

    def _split(self, draw: float) -> str:
        if draw < self.config.val_groups:
            return "val"
        return "test" if draw < self.config.val_groups + self.config.test_groups else "train"
