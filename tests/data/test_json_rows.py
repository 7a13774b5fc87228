"""Rows of JSON in both forms, however long, however broken; and the images that they name."""

import base64
import json
from pathlib import Path

import pytest

from diptych.core.record import Segment
from diptych.data import json_rows as module
from diptych.data.json_rows import first_object, image_segment, json_rows, plain_meta
from diptych.data.sources.source import Reject, look
from tests.data.pictures import png

ROWS = [{"n": i, "text": "x" * (i * 37 % 200), "deep": [{"a": [1, {"b": "],["}]}]} for i in range(50)]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("window", [7, 100, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_and_lines_hold_the_same_rows(
    tmp_path: Path, window: int, indent: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", window)
    listed = list(json_rows(write(tmp_path / "a.json", "\ufeff \n" + json.dumps(ROWS, indent=indent))))
    lines = list(json_rows(write(tmp_path / "a.jsonl", "\n\n".join(map(json.dumps, ROWS)))))
    assert [row[2] for row in listed] == [row[2] for row in lines] == ROWS  # type: ignore[index]
    assert [row[0] for row in listed] == [row[0] for row in lines] == [f"{i + 1:09d}" for i in range(50)]  # type: ignore[index]
    assert listed[3][1].endswith("a.json item 4")  # type: ignore[index]
    assert lines[3][1].endswith("a.jsonl line 7")  # type: ignore[index]


def test_broken_rows_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = list(json_rows(write(tmp_path / "a.jsonl", '{"a": 1}\nnot json\n[1]\n{"a": 2}')))
    assert [r.reason if isinstance(r, Reject) else r[2]["a"] for r in lines] == [1, "bad_json", "bad_json", 2]
    listed = list(json_rows(write(tmp_path / "a.json", '[{"a": 1}, 7, {"a": 2}, {"a": ')))
    assert [r.reason if isinstance(r, Reject) else r[2]["a"] for r in listed] == [1, "bad_json", 2, "bad_json"]
    assert "nothing after this is read" in listed[-1].message  # type: ignore[union-attr]
    assert list(json_rows(write(tmp_path / "b.json", "[]"))) == []
    monkeypatch.setattr(module, "MAX_OBJECT", 100)
    monkeypatch.setattr(module, "_CHUNK", 10)
    long = json.dumps({"a": "x" * 500})
    lines = list(json_rows(write(tmp_path / "c.jsonl", f'{{"a": 1}}\n{long}\n{{"a": 2}}')))
    assert [r.reason if isinstance(r, Reject) else r[2]["a"] for r in lines] == [1, "bad_row", 2]


def test_the_first_row_tells_what_a_file_holds(tmp_path: Path) -> None:
    assert first_object(look(write(tmp_path / "a.json", json.dumps(ROWS)))) == ROWS[0]
    assert first_object(look(write(tmp_path / "a.jsonl", "broken\n" + json.dumps(ROWS[1])))) == ROWS[1]
    long = json.dumps([{"conversations": [{"value": "x" * 100_000}]}])
    assert first_object(look(write(tmp_path / "b.json", long))) == {"conversations": []}
    assert first_object(look(write(tmp_path / "a.csv", '{"a": 1}'))) == {}
    assert first_object(look(write(tmp_path / "c.json", "3"))) == {}
    assert first_object(look(tmp_path)) == {}


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_images_by_path_and_by_bytes(tmp_path: Path, prefix: str) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    row = ("k", "somewhere", {})
    text = prefix + base64.b64encode(png(1)).decode()
    for value in ("a.png", {"path": "a.png"}, text, {"bytes": text, "path": "b.png"}, {"image_url": {"url": text}}):
        found = image_segment(value, row, tmp_path, 10_000)
        assert isinstance(found, Segment)
        assert (found.data, found.role) == (png(1), "image")


def test_images_that_cannot_be_had_are_named(tmp_path: Path) -> None:
    row = ("k", "somewhere", {})
    hexes = "ab" * 40  # no base64 of an image, but a path
    for value, reason in (
        ("gone.png", "file_not_found"),
        ({"url": "https://x.y/a.png"}, "is_url"),
        (hexes, "file_not_found"),
        (None, "no_image"),
        (7, "bad_row"),
        (base64.b64encode(png(1) * 4).decode(), "too_many_bytes"),
    ):
        found = image_segment(value, row, tmp_path, 300)
        assert isinstance(found, Reject)
        assert (found.reason, found.where) == (reason, "somewhere")


def test_what_else_a_row_knows_is_kept_if_it_is_plain() -> None:
    row = {"a": "x", "b": 1.5, "c": [1], "d": None, "e": "y" * 3000, "f": float("nan"), "id": 7, "g": "ü\udcff"}
    assert plain_meta(row, ("id",)) == {"a": "x", "b": 1.5, "g": "ü\\udcff"}
