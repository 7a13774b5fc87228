"""What the beginning of a .json shows, and reading one whole."""

import json
from pathlib import Path
from typing import Any

import pytest

from diptych.core.errors import DataError
from diptych.data import json_documents
from diptych.data.json_documents import document, entries, first_item, first_row, head_of, listed
from diptych.data.sources.source import Reject, look


def saved(tmp_path: Path, value: Any, name: str = "x.json") -> Path:
    path = tmp_path / name
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_a_short_file_is_seen_whole(tmp_path: Path) -> None:
    for value in ({"a": [1, {"b": 2}], "c": "d"}, [1, 2], [], {}, "text"):
        assert head_of(saved(tmp_path, json.dumps(value))) == value
    assert head_of(saved(tmp_path, "no json")) is None
    assert head_of(saved(tmp_path, "")) is None
    assert head_of(tmp_path / "gone.json") is None


@pytest.mark.parametrize("indent", [None, 2])
def test_of_a_long_one_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indent: int | None) -> None:
    monkeypatch.setattr(json_documents, "_HEAD", 400)
    rows = [{"id": i, "words": "x" * 30} for i in range(100)]
    whole = {"info": {"year": 1}, "n": 3, "images": rows, "annotations": rows}
    head = head_of(saved(tmp_path, json.dumps(whole, indent=indent)))
    assert {k: head[k] for k in ("info", "n")} == {"info": {"year": 1}, "n": 3}
    assert head["images"][0] == rows[0] == first_item(head, "images")
    assert "annotations" not in head
    assert first_item(head, "n") == first_item(None, "n") == {}
    assert head_of(saved(tmp_path, json.dumps(rows, indent=indent)))[0] == rows[0]
    named = {str(i): row for i, row in enumerate(rows)}
    assert head_of(saved(tmp_path, json.dumps(named, indent=indent)))["0"] == rows[0]
    long = [{"id": 1, "words": "x" * 1000}]
    assert head_of(saved(tmp_path, json.dumps(long, indent=indent))) == [{"id": 1}]


def test_the_first_row_of_any_form(tmp_path: Path) -> None:
    row = {"a": 1, "b": "c"}
    for text in (json.dumps([row, 2]), json.dumps({"7": row}), f"{json.dumps(row)}\n{json.dumps(row)}\n"):
        assert first_row(look(saved(tmp_path, text))) == row
    assert first_row(look(saved(tmp_path, json.dumps(row), "x.jsonl"))) == row
    assert first_row(look(saved(tmp_path, json.dumps(row))), lines=False) == {}
    assert first_row(look(saved(tmp_path, json.dumps(row), "x.txt"))) == {}
    assert first_row(look(saved(tmp_path, "[3]"))) == {}


def test_a_document_without_what_is_bulky(tmp_path: Path) -> None:
    path = saved(tmp_path, {"a": [{"keep": 1, "mask": [1] * 9}], "mask": 3})
    assert document(path, "it", frozenset({"mask"})) == {"a": [{"keep": 1}]}
    assert document(path, "it")["mask"] == 3
    with pytest.raises(DataError, match=r"it must be readable; got No such file"):
        document(tmp_path / "gone.json", "it")
    with pytest.raises(DataError, match=r"it must hold an object; got a list"):
        document(saved(tmp_path, [1]), "it")
    with pytest.raises(DataError, match=r"it must be JSON"):
        document(saved(tmp_path, "{"), "it")


def test_the_list_under_a_name(tmp_path: Path) -> None:
    assert listed({"a": [{}]}, "a", tmp_path) == [{}]
    for wrong in ({}, {"a": 3}, {"a": [3]}):
        with pytest.raises(DataError, match="must hold a list of objects called 'a'"):
            listed(wrong, "a", tmp_path)


def test_entries_of_every_form(tmp_path: Path) -> None:
    named = list(entries(saved(tmp_path, {"x": {"a": 1}, "y": {"a": 2}})))
    assert [(k, v) for k, _, v in named] == [("x", {"a": 1}), ("y", {"a": 2})]  # type: ignore[misc]
    for text, name in (('[{"a": 1}]', "x.json"), ('{"a": 1}\n', "x.json"), ('{"a": 1}\n', "x.jsonl")):
        ((key, _, row),) = entries(saved(tmp_path, text, name))  # type: ignore[misc]
        assert (key, row) == ("000000001", {"a": 1})


def test_an_entry_that_is_no_object_behind_the_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_documents, "_HEAD", 30)
    *_, last = entries(saved(tmp_path, {"x": {"a": 1}, "y": {"words": "x" * 50}, "z": 3}))
    assert isinstance(last, Reject)
    assert (last.key, last.reason) == ("z", "bad_json")
