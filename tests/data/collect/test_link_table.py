"""Links are written once each, and the table is there only when it is whole."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from diptych.core.errors import ConfigError
from diptych.data.collect.link_table import LINKS, LinkTable
from diptych.data.collect.page_rules import uid_of_link


def fill(path: Path) -> int:
    with LinkTable(str(path)) as table:
        for n in (0, 1, 0, 2):
            table.add(url=f"http://e.org/{n}", caption="a dog", uid=uid_of_link("a dog", f"{n}"), rule="laion")
    return table.rows


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_links_are_written_once(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "deep" / f"links.{suffix}"
    assert fill(path) == 3
    rows = (
        pq.read_table(path).to_pylist()
        if suffix == "parquet"
        else [json.loads(line) for line in path.read_text().splitlines()]
    )
    assert [r["url"][-1] for r in rows] == ["0", "1", "2"]
    assert list(rows[0]) == LINKS.names
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_table_that_was_not_finished_is_not_there(tmp_path: Path) -> None:
    def stopped() -> None:
        with LinkTable(str(tmp_path / "a.jsonl")) as table:
            table.add(url="u", uid="0" * 32)
            raise ValueError

    with pytest.raises(ValueError):
        stopped()
    assert not list(tmp_path.iterdir())


def test_other_endings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"links must be a .jsonl or .parquet to be written; got a.csv"):
        LinkTable("a.csv")
