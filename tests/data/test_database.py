"""A database is read and nothing else, whatever it or the query wants; tables are copied into one row by row."""

import sqlite3
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diptych.core.errors import DataError
from diptych.data.database import Database, Unread, as_database
from diptych.data.sources.source import Reject


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a b?c%.db"
    with sqlite3.connect(path) as connection:
        connection.execute('CREATE TABLE "od""d" (a, b)')
        connection.executemany('INSERT INTO "od""d" VALUES (?, ?)', [(1, "x"), (2, "y")])
        connection.execute(
            "CREATE VIEW endless AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
            "SELECT i FROM n WHERE i < 0"
        )
    connection.close()
    return path


def test_tables_columns_and_rows(path: Path) -> None:
    database = Database(path)
    assert database.tables == ["endless", 'od"d']
    assert database.columns('od"d') == ["a", "b"]
    names, rows = database.ask('SELECT b, a FROM "od""d" ORDER BY a')
    assert (names, list(rows)) == (["b", "a"], [("x", 1), ("y", 2)])
    database.close()


@pytest.mark.parametrize(
    "sql",
    [
        'DELETE FROM "od""d"',
        "ATTACH 'other.db' AS o",
        "PRAGMA query_only = OFF",
        "SELECT 1; DROP TABLE x",
        "SELECT load_extension('x.so')",
        "CREATE TABLE t (a)",
        "VACUUM INTO 'copy.db'",
        "SELECT nothing FROM nowhere",
    ],
)
def test_only_a_select_is_answered(path: Path, sql: str) -> None:
    before = path.read_bytes()
    database = Database(path)
    with pytest.raises(DataError, match="a query must be one SELECT"):
        list(database.ask(sql)[1])
    database.close()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_view_that_never_ends_is_stopped(path: Path) -> None:
    database = Database(path, max_seconds=0.2)
    with pytest.raises(Unread, match=r"must end within 0\.2 s") as raised:
        list(database.ask("SELECT * FROM endless")[1])
    assert raised.value.reason == "time_limit"
    database.close()


def test_a_cell_that_is_too_large_ends_the_reading(path: Path) -> None:
    database = Database(path, max_cell=1000)
    with pytest.raises(DataError, match="too big"):
        list(database.ask('SELECT zeroblob(100000000) FROM "od""d"')[1])
    database.close()


def test_what_is_no_database_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"nothing")
    with pytest.raises(DataError, match="must be a SQLite file"):
        Database(tmp_path / "x.db")
    (tmp_path / "y.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    with pytest.raises(DataError, match="must be whole"):
        Database(tmp_path / "y.db")
    with pytest.raises(DataError, match="must be readable"):
        Database(tmp_path / "gone.db")


def test_tables_of_text_become_a_database_and_bad_rows_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbfid;words\n1;"two; three"\n2\n3;\xff\n4;"two\nlines"\n')
    pq.write_table(pa.table({"id": [1, 2], "more": [["x", "y"], None]}), tmp_path / "b.parquet")
    tables = {"a": tmp_path / "a.csv", "b": tmp_path / "b.parquet"}
    rejects = list(as_database(tables, tmp_path / "out.db"))
    assert [(r.key, r.reason) for r in rejects] == [("a-000000002", "bad_row"), ("a-000000003", "bad_text")]
    assert all(isinstance(r, Reject) for r in rejects)
    database = Database(tmp_path / "out.db")
    assert list(database.ask("SELECT * FROM a")[1]) == [("1", "two; three"), ("4", "two\nlines")]
    assert list(database.ask("SELECT * FROM b")[1]) == [(1, '["x", "y"]'), (2, None)]
    database.close()


@pytest.mark.parametrize("head", ["a,A", "a,", ""])
def test_columns_need_names_of_their_own(tmp_path: Path, head: str) -> None:
    (tmp_path / "a.csv").write_text(head + "\n1,2\n")
    with pytest.raises(DataError, match="with names of their own"):
        list(as_database({"a": tmp_path / "a.csv"}, tmp_path / "out.db"))
