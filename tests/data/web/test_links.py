"""A table of links is cut once, whatever it is written in."""

import datetime
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diptych.core.errors import DataError
from diptych.data.web.links import cut_links

ROWS = [{"URL": f"http://x/{i}", "TEXT": f"caption {i}", "similarity": i / 10} for i in range(7)]


def written(folder, suffix: str):
    path = folder / f"links.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif suffix == "jsonl":
        path.write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    else:
        mark = "," if suffix == "csv" else "\t"
        path.write_text("\n".join(mark.join(map(str, r)) for r in [list(ROWS[0]), *(r.values() for r in ROWS)]) + "\n")
    return path


@pytest.mark.parametrize("suffix", ["parquet", "csv", "tsv", "jsonl"])
def test_pieces_hold_all_rows_in_order(suffix, tmp_path) -> None:
    pieces = cut_links(written(tmp_path, suffix), tmp_path / "out", 3)
    assert [p.name for p in pieces] == ["00000.parquet", "00001.parquet", "00002.parquet"]
    rows = [r for p in pieces for r in pq.read_table(p).to_pylist()]
    assert [r["url"] for r in rows] == [r["URL"] for r in ROWS]
    assert [r["caption"] for r in rows] == [r["TEXT"] for r in ROWS]
    assert json.loads(rows[3]["meta"]) == {"similarity": 0.3}
    assert cut_links(tmp_path / f"links.{suffix}", tmp_path / "out", 3) == pieces
    with pytest.raises(DataError, match="pieces of the same size"):
        cut_links(tmp_path / f"links.{suffix}", tmp_path / "out", 4)


def test_what_is_no_table_of_links_is_named(tmp_path) -> None:
    (tmp_path / "a.csv").write_text("address,words\nhttp://x,y\n")
    with pytest.raises(DataError, match="must have a column for url_column; got address, words"):
        cut_links(tmp_path / "a.csv", tmp_path / "o1", 3)
    pieces = cut_links(tmp_path / "a.csv", tmp_path / "o2", 3, "address", "words")
    assert pq.read_table(pieces[0]).to_pylist()[0]["caption"] == "y"
    (tmp_path / "b.txt").write_text("x")
    with pytest.raises(DataError, match=r"got b\.txt"):
        cut_links(tmp_path / "b.txt", tmp_path / "o3", 3)
    (tmp_path / "c.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="must be a whole"):
        cut_links(tmp_path / "c.parquet", tmp_path / "o4", 3)
    with pytest.raises(DataError, match="is not"):
        cut_links(tmp_path / "d.csv", tmp_path / "o5", 3)


def test_captions_of_digits_and_columns_of_any_type(tmp_path) -> None:
    (tmp_path / "a.csv").write_text("url,caption\nhttp://x/0,007\nhttp://x/1,1.50\n")
    pieces = cut_links(tmp_path / "a.csv", tmp_path / "a", 3)
    assert [r["caption"] for r in pq.read_table(pieces[0]).to_pylist()] == ["007", "1.50"]
    days = [{"url": "http://x/0", "seen": [datetime.date(2004, 5, 1)]}]
    pq.write_table(pa.Table.from_pylist(days), tmp_path / "b.parquet")
    pieces = cut_links(tmp_path / "b.parquet", tmp_path / "b", 3)
    assert json.loads(pq.read_table(pieces[0]).to_pylist()[0]["meta"]) == {"seen": ["2004-05-01"]}


def test_what_a_stopped_cutting_left_is_not_taken(tmp_path) -> None:
    (tmp_path / "out" / "links").mkdir(parents=True)
    (tmp_path / "out" / "links" / "00009.parquet").write_bytes(b"of another table")
    table = written(tmp_path, "csv")
    assert len(cut_links(table, tmp_path / "out", 3)) == len(cut_links(table, tmp_path / "out", 3)) == 3
