"""A database of studies and reports: the patients never parted, several images a record, and nothing read that is not
named, whatever the database holds."""

import sqlite3
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diptych.core.errors import ConfigError, DataError
from diptych.core.record import Record
from diptych.data.collect.collector import collector
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.source import Reject
from tests.data.pictures import png


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    (home / "images").mkdir(parents=True)
    for i in range(60):
        (home / f"images/{i}.png").write_bytes(png(i))
    path = home / "hospital.sqlite"
    connection = sqlite3.connect(path)
    connection.execute(
        "CREATE TABLE studies (study_id, patient_id, frontal, lateral, findings, impression, date, name)"
    )
    for i in range(30):
        row = (f"s{i}", f"p{i // 3}", f"images/{2 * i}.png", f"images/{2 * i + 1}.png", f"Finding {i}.", f"All {i}.")
        connection.execute("INSERT INTO studies VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row, f"2020-01-{i + 1:02d}", "Doe"))
    connection.commit()
    connection.close()
    return path


def read(path: Path, **settings: Any) -> list[Record | Reject]:
    return list(collector("table", str(path), **settings).records())


COLUMNS = {"image_columns": "frontal,lateral", "text_columns": "findings,impression", "id_column": "study_id"}


def test_studies_with_two_images_and_their_report(studies: Path) -> None:
    records = read(studies, **COLUMNS, texts="joined", val_groups=0.3, licence="CC-BY-4.0")
    assert len(records) == 30
    first = records[0]
    assert isinstance(first, Record)
    assert (first.key, [s.modality for s in first.segments]) == ("s0", ["image", "image", "text"])
    assert first.segments[1].data == png(1)
    assert first.segments[2].texts == ("Findings: Finding 0.\nImpression: All 0.",)
    assert first.meta["date"] == "2020-01-01"
    assert first.meta["collected"] == {
        "collector": "table",
        "rule": "row",
        "origin": str(studies),
        "place": "row 1",
        "licence": "CC-BY-4.0",
    }
    assert "Doe" not in str(first.meta)
    assert "p0" not in str(first.meta)
    splits: dict[str, set[str]] = {}
    for record in records:
        assert isinstance(record, Record)
        splits.setdefault(record.meta["group"], set()).add(record.meta["split"])
    assert len(splits) == 10
    assert all(len(s) == 1 for s in splits.values())
    assert {s for some in splits.values() for s in some} == {"train", "val"}


def test_packed_with_the_split_of_the_patient(studies: Path, tmp_path: Path) -> None:
    source = collector("table", str(studies), **COLUMNS, val_groups=0.3, meta_columns="*")
    report = pack(source, tmp_path / "out", PackConfig(jobs=1, vocab_size=300))
    assert (report.seen, report.kept) == (30, 30)
    assert set(report.splits) == {"train", "val"}


def test_a_query_and_rows_of_one_id_become_one_record(studies: Path) -> None:
    query = "SELECT patient_id, frontal AS image, findings AS text FROM studies ORDER BY patient_id, study_id"
    records = read(studies, query=query, id_column="patient_id")
    assert len(records) == 10
    assert all(isinstance(r, Record) and [s.modality for s in r.segments] == ["image"] * 3 + ["text"] for r in records)
    assert isinstance(records[0], Record)
    assert len(records[0].segments[3].texts) == 3
    limited = read(studies, query=query, id_column="patient_id", max_images=2)
    assert {r.reason for r in limited if isinstance(r, Reject)} == {"too_many_images"}


def test_csv_and_parquet_joined(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    (tmp_path / "reports.csv").write_text("study,text,subject\n7,Seven.,a\n8,Eight.,b\n9,Nine.,c\n8,")
    pq.write_table(
        pa.table({"study_id": [7, 8, 7], "image": ["0.png", '["1.png", "2.png"]', "1.png"]}),
        tmp_path / "images.parquet",
    )
    settings = {"join": "images.parquet", "on": "study=study_id", "id_column": "study"}
    found = read(tmp_path / "reports.csv", **settings)
    bad, seven, eight, nine = found
    assert isinstance(bad, Reject)
    assert bad.reason == "bad_row"
    assert isinstance(seven, Record)
    assert isinstance(eight, Record)
    assert [len(r.segments) for r in (seven, eight)] == [3, 3]
    assert eight.segments[2].texts == ("Eight.",)
    assert isinstance(nine, Reject)
    assert (nine.key, nine.reason) == ("9", "no_image")
    assert read(tmp_path / "reports.csv", **settings) == found


def test_paths_that_lead_out_are_rejected(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "secret.png").write_bytes(png(1))
    (home / "ok.png").write_bytes(png(2))
    (home / "link.png").symlink_to(tmp_path / "secret.png")
    (home / "x:").mkdir()
    cells = ["../secret.png", str(tmp_path / "secret.png"), "link.png", f"file://{tmp_path}/secret.png"]
    cells += [" ../secret.png", "../home/x://../../secret.png", "https://x.org/a.png", "gone.png", "", "a\0b"]
    lines = [f"{c},words {i},p" for i, c in enumerate([*cells, "ok.png", "./ok.png"])]
    (home / "t.csv").write_text("\n".join(["image,text,patient", *lines, "ok.png,no group,"]) + "\n")
    found = read(home / "t.csv")
    reasons = [r.reason for r in found if isinstance(r, Reject)]
    assert reasons == [
        *["outside_root"] * 6,
        *("is_url", "file_not_found", "no_image", "outside_root", "no_group"),
    ]
    assert len([r for r in found if isinstance(r, Record)]) == 2


def test_hostile_views_and_sizes_end_with_a_reason(studies: Path) -> None:
    connection = sqlite3.connect(studies)
    connection.execute(
        "CREATE VIEW endless AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
        "SELECT 'images/0.png' AS image, 'x' AS text, i FROM n"
    )
    connection.execute("CREATE VIEW never AS SELECT * FROM endless WHERE i < 0")
    connection.commit()
    connection.close()
    found = read(studies, table="endless", max_rows=20, id_column="i")
    assert len(found) == 21
    assert isinstance(found[-1], Reject)
    assert found[-1].reason == "row_limit"
    (late,) = read(studies, table="never", max_seconds=0.2)
    assert isinstance(late, Reject)
    assert late.reason == "time_limit"
    long = read(studies, table="studies", **COLUMNS, max_text=3)
    assert {r.reason for r in long if isinstance(r, Reject)} == {"text_too_long"}


def test_bytes_in_the_table_are_images(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [png(1), b"x" * 5000], "text": ["One.", "Two."]}), tmp_path / "t.parquet")
    source = collector("table", str(tmp_path / "t.parquet"))
    source.max_bytes = 4000
    one, two = source.records()
    assert isinstance(one, Record)
    assert one.segments[0].data == png(1)
    assert isinstance(two, Reject)
    assert two.reason == "too_many_bytes"


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"table": "nothing"}, "table must be one of .*studies; got 'nothing'"),
        ({"image_columns": "fronta"}, "Did you mean 'frontal'"),
        ({}, "must have image_columns; got study_id"),
        ({**COLUMNS, "group_column": "patiend_id"}, "group_column must be columns of .*Did you mean 'patient_id'"),
        ({"query": "DELETE FROM studies"}, "must be one SELECT"),
        ({"image_root": "/nowhere/at/all"}, "image_root must be a folder"),
        ({"join": "studies", "on": "nothing"}, "on must be a column of both tables"),
    ],
)
def test_what_is_asked_wrongly_is_an_error(studies: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(studies, **settings)


def test_settings_that_contradict(studies: Path) -> None:
    for settings, message in (
        ({"join": "a"}, "join and on"),
        ({"query": "SELECT 1", "table": "a"}, "stand alone"),
        ({"val_groups": 0.5, "test_groups": 0.5}, "some to train on"),
    ):
        with pytest.raises(ConfigError, match=message):
            collector("table", str(studies), **settings)
