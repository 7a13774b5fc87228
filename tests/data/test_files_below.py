"""Files are found in a stable order, and none outside of the folder."""

from pathlib import Path

import pytest

from diptych.core.errors import DataError
from diptych.data.files_below import files_below, is_inside
from diptych.data.sources.source import Reject


def test_by_ending_and_in_order_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("b/z.pdf", "a.PDF", "b/a.txt", ".hidden/x.pdf", "c.pdf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = list(files_below(tmp_path, {".pdf"}))
    assert [f[0] for f in found if not isinstance(f, Reject)] == ["a.PDF", "b/z.pdf", "c.pdf"]
    assert list(files_below(tmp_path / "a.PDF", {".pdf"})) == [("a.PDF", tmp_path / "a.PDF")]


def test_links_out_are_rejected_and_folders_not_followed(tmp_path: Path) -> None:
    home, outside = tmp_path / "home", tmp_path / "outside"
    home.mkdir()
    outside.mkdir()
    (outside / "secret.pdf").write_text("x")
    (home / "own.pdf").write_text("x")
    (home / "link.pdf").symlink_to(outside / "secret.pdf")
    (home / "alias.pdf").symlink_to(home / "own.pdf")
    (home / "folder").symlink_to(outside)
    (home / "round").symlink_to(home)
    found = {(f.key if isinstance(f, Reject) else f[0]): f for f in files_below(home, {".pdf"})}
    assert set(found) == {"own.pdf", "link.pdf", "alias.pdf"}
    rejected = found["link.pdf"]
    assert isinstance(rejected, Reject)
    assert rejected.reason == "outside_root"
    assert not is_inside(home / "../outside/secret.pdf", str(home.resolve()))
    assert not is_inside("a\0b", str(home.resolve()))


def test_nothing_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must be a file or a folder"):
        list(files_below(tmp_path / "gone", {".pdf"}))
