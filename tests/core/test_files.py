import os

import pytest

from diptych.core.files import cache_dir, new_directory, sha256, write_atomic, write_json


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_atomic(path, "old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("no")))
    with pytest.raises(OSError, match="no"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_directory_is_whole_or_not_there(tmp_path):
    target = tmp_path / "d"

    def fail():
        with new_directory(target) as d:
            (d / "x").write_text("1")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert os.listdir(tmp_path) == []
    for text in ("1", "2"):
        with new_directory(target) as d:
            (d / "x").write_text(text)
    assert (target / "x").read_text() == "2"
    assert os.listdir(tmp_path) == ["d"]


def test_hash_json_and_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "c"))
    assert cache_dir("a", "b") == tmp_path / "c" / "a" / "b"
    write_json(tmp_path / "j.json", {"a": 1})
    assert sha256(tmp_path / "j.json") == sha256(tmp_path / "j.json")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "j.json", {"a": float("nan")})
