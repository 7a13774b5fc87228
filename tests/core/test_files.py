import os

import pytest

from diptych.core.files import cache_dir, folder_beside, new_directory, sha256, sweep, write_atomic, write_json


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


def left_by_a_kill(folder):
    """As a process leaves it that was killed while it wrote."""
    folder.mkdir()
    (folder / "half").write_text("done")


def test_what_killed_processes_left_is_removed_and_what_others_work_on_is_not(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    left, held, other = (tmp_path / name for name in (".d.new-abcd_123", ".d.new-held0000", ".d.newest"))
    for folder in (left, held, other):
        left_by_a_kill(folder)
    handle = os.open(held, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with folder_beside(tmp_path / "d") as made, folder_beside(tmp_path / "d") as second:
            assert not left.exists()
            assert made.is_dir()  # its lock is held, too
            assert second.is_dir()
        assert sorted(os.listdir(tmp_path)) == [held.name, other.name]
    finally:
        os.close(handle)
    with new_directory(tmp_path / "d"):
        pass
    assert sorted(os.listdir(tmp_path)) == [other.name, "d"]


def test_an_old_directory_that_a_kill_put_aside_comes_back(tmp_path):
    left_by_a_kill(tmp_path / ".d.replaced")

    def fail():
        with new_directory(tmp_path / "d"):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert os.listdir(tmp_path) == ["d"]
    left_by_a_kill(tmp_path / ".d.replaced")
    with new_directory(tmp_path / "d") as d:
        (d / "whole").write_text("new")
    assert os.listdir(tmp_path) == ["d"]
    assert os.listdir(tmp_path / "d") == ["whole"]


def test_half_written_files_are_swept_and_no_others(tmp_path):
    for name in (".a.json.new-abcd_123", ".b.json.new-abcd_123", ".a.json", "a.json.new-abcd_123", ".a.json.new-abc"):
        (tmp_path / name).write_text("{")
    sweep(tmp_path, "a.json")
    assert not (tmp_path / ".a.json.new-abcd_123").exists()
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".a.json", ".a.json.new-abc", "a.json.new-abcd_123"]
    sweep(tmp_path / "none")


def test_hash_json_and_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "c"))
    assert cache_dir("a", "b") == tmp_path / "c" / "a" / "b"
    write_json(tmp_path / "j.json", {"a": 1})
    assert sha256(tmp_path / "j.json") == sha256(tmp_path / "j.json")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "j.json", {"a": float("nan")})
