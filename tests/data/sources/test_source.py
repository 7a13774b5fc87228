"""Finding the source behind a path, and reading files with care."""

import os
from pathlib import Path

import pytest

from diptych.core.errors import DataError
from diptych.data.sources.source import FromRecords, Reject, look, open_source, read_file
from tests.data.pictures import png


def test_what_is_not_there_or_not_known_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="which is not there"):
        open_source(tmp_path / "nothing")
    with pytest.raises(DataError, match="must be on this machine"):
        open_source("https://example.com/pairs.csv")
    (tmp_path / "notes.docx").write_bytes(b"x")
    with pytest.raises(DataError, match=r"a folder with docx"):
        open_source(tmp_path)
    with pytest.raises(DataError, match=r"a \.docx file"):
        open_source(tmp_path / "notes.docx")


def test_reading_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    assert read_file(tmp_path / "a.png", "k", 1000) == png()

    def reason(path: Path, limit: int = 1000) -> str:
        got = read_file(path, "k", limit)
        assert isinstance(got, Reject)
        assert got.key == "k"
        return got.reason

    assert reason(tmp_path / "a.png", 10) == "too_many_bytes"
    assert reason(tmp_path) == "not_a_file"
    assert reason(tmp_path / "gone") == "file_not_found"
    assert reason(tmp_path / "a\0b") == "unreadable"
    os.mkfifo(tmp_path / "pipe")
    assert reason(tmp_path / "pipe") == "not_a_file"  # reading it would wait for ever


def test_a_look_is_quick_and_shallow(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x.PNG").write_bytes(b"")
    (tmp_path / "top.csv").write_text("")
    (tmp_path / ".hidden").write_text("")
    found = look(tmp_path)
    assert found.names == {"top.csv"}
    assert found.suffixes == {"csv", "png"}
    assert len(look(tmp_path, entries=1).suffixes) == 1


def test_records_from_a_function() -> None:
    source = FromRecords(lambda: [Reject("a", "no.")], "mine")
    assert (source.name, source.where("a"), source.count()) == ("mine", "mine: a", None)
    assert list(source.records()) == list(source.records())
