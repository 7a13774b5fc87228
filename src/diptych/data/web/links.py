"""A table of links and captions, cut once into pieces of equal size: the units of work of a download.

.parquet, .csv, .tsv and .jsonl; the column of links is found by its name, and so is that of captions; all others travel
along into each record's meta.
"""

import json
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from diptych.core.errors import DataError
from diptych.core.files import write_json
from diptych.data.rows import CAPTION_COLUMNS, URL_COLUMNS

PIECES = "links"
ABOUT = "links.json"


def cut_links(table: Path, out: Path, size: int, url_column: str = "", caption_column: str = "") -> list[Path]:
    """The pieces of a table, ``OUT/links/00000.parquet`` and so on, of `size` rows each, with the columns url, caption
    and meta (JSON). Cut once: what is there already is taken, if it is of the same table. Raises DataError."""
    folder, about = out / PIECES, out / ABOUT
    mark = {"table": str(table.resolve()), "bytes": table.stat().st_size if table.is_file() else 0, "size": size}
    if about.is_file():
        known = json.loads(about.read_text())
        if {k: v for k, v in known.items() if k in mark} != mark:
            raise DataError(
                f"{out} must hold a download of the same table in pieces of the same size; it holds another. Name "
                "another --out."
            )
        # counted, not listed: the cutting of another table may have been stopped here before
        return [folder / f"{n:05d}.parquet" for n in range(-(-known["rows"] // size))]
    folder.mkdir(parents=True, exist_ok=True)
    waiting: list[pa.RecordBatch] = []
    pieces: list[Path] = []
    count = rows = 0

    def write(whole: pa.Table) -> None:
        path = folder / f"{len(pieces):05d}.parquet"
        pq.write_table(whole, path, compression="zstd")
        pieces.append(path)

    for batch in _batches(table, (url_column, caption_column)):
        waiting.append(_three_columns(batch, table, url_column, caption_column))
        count, rows = count + batch.num_rows, rows + batch.num_rows
        while count >= size:
            whole = pa.Table.from_batches(waiting)
            write(whole.slice(0, size))
            waiting, count = whole.slice(size).to_batches(), count - size
    if count:
        write(pa.Table.from_batches(waiting))
    if not pieces:
        raise DataError(f"{table} must hold links; it holds no rows.")
    write_json(about, mark | {"rows": rows})
    return pieces


def _batches(table: Path, given: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    suffix = table.suffix.lower()
    try:
        if suffix == ".parquet":
            yield from pq.ParquetFile(table).iter_batches(4096)
        elif suffix in (".csv", ".tsv"):
            parse = pyarrow.csv.ParseOptions(delimiter="\t" if suffix == ".tsv" else ",", newlines_in_values=True)
            with pyarrow.csv.open_csv(table, parse_options=parse) as head:
                names = head.schema.names
            # a caption "007" is no number, whatever stands in the rows before it
            texts = [n for n in names if n in given or n.lower() in (*URL_COLUMNS, *CAPTION_COLUMNS)]
            types = {n: pa.string() for n in texts}
            plain = pyarrow.csv.ConvertOptions(strings_can_be_null=False, column_types=types)
            yield from pyarrow.csv.open_csv(table, parse_options=parse, convert_options=plain)
        elif suffix in (".jsonl", ".ndjson"):
            yield from pyarrow.json.open_json(table)
        else:
            raise DataError(f"a table of links must be .parquet, .csv, .tsv or .jsonl; got {table.name}.")
    except FileNotFoundError:
        raise DataError(f"a table of links must be there; {table} is not.") from None
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{table} must be a whole {suffix} file; got {error}.") from None


def _three_columns(batch: pa.RecordBatch, table: Path, url_column: str, caption_column: str) -> pa.RecordBatch:
    names = batch.schema.names
    url = _named(names, url_column, URL_COLUMNS, table, "url_column", True)
    caption = _named(names, caption_column, CAPTION_COLUMNS, table, "caption_column", False)
    rest = [n for n in names if n not in (url, caption)]
    captions = batch[caption].to_pylist() if caption else [""] * batch.num_rows
    metas = batch.select(rest).to_pylist() if rest else [{}] * batch.num_rows
    return pa.RecordBatch.from_pydict(
        {
            "url": pa.array([str(u or "") for u in batch[url].to_pylist()], pa.string()),
            "caption": pa.array([str(c) if c is not None else "" for c in captions], pa.string()),
            "meta": pa.array([json.dumps(m, sort_keys=True, default=str) for m in metas], pa.string()),
        }
    )


def _named(names: list[str], given: str, usual: tuple[str, ...], table: Path, option: str, must: bool) -> str:
    lower = {n.lower(): n for n in reversed(names)}
    found = given if given in names else "" if given else next((lower[u] for u in usual if u in lower), "")
    if found or (not must and not given):
        return found
    close = get_close_matches(given or usual[0], names, n=1)
    raise DataError(
        f"{table} must have a column for {option}; got {', '.join(names)}. "
        + (f"Did you mean {close[0]!r}?" if close else f"Name it: {option}=...")
    )
