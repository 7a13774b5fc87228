"""Where the images are that an annotation file names."""

from pathlib import Path

import pytest

from diptych.core.errors import DataError
from diptych.data.image_folder import find_image_folder
from tests.data.benchmark_files import pictures


def test_the_usual_places_are_looked_in_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    near = tmp_path / "set" / "annotations" / "a.json"
    near.parent.mkdir(parents=True)
    with pytest.raises(
        DataError, match=r"got none of the first 2 \('x.jpg' ...\) in .*annotations. .*: image_root=DIR"
    ):
        find_image_folder([("x.jpg", "y.jpg"), ("z.jpg",)], near)
    pictures(tmp_path / "set" / "neighbour", "x.jpg")  # someone else's picture of that name
    with pytest.raises(DataError, match="pictures=DIR"):
        find_image_folder([("x.jpg",)], near, option="pictures")
    assert capsys.readouterr().err == ""
    for folder, hints in (
        (tmp_path / "set" / "images", ()),
        (tmp_path / "set" / "images" / "val", ("val",)),
        (tmp_path / "set" / "val", ("val",)),
        (near.parent / "any", ()),
        (near.parent, ()),
    ):
        pictures(folder, "y.jpg")
        assert find_image_folder([("x.jpg", "y.jpg")], near, hints=hints) == folder
    said = capsys.readouterr().err
    assert f"are read from {tmp_path / 'set' / 'images'} (image_root=DIR" in said
    assert said.count("are read from") == 4


def test_the_folder_with_the_most_of_them(tmp_path: Path) -> None:
    pictures(tmp_path / "a", "1.jpg")
    pictures(tmp_path / "b", "1.jpg", "2.jpg")
    assert find_image_folder([("1.jpg",), ("2.jpg",)], tmp_path / "x.json") == tmp_path / "b"


def test_what_the_user_gives_is_the_only_place(tmp_path: Path) -> None:
    pictures(tmp_path / "images", "a.jpg")
    pictures(tmp_path / "mine", "b.jpg")
    near = tmp_path / "x.json"
    assert find_image_folder([("b.jpg",)], near, str(tmp_path / "mine")) == tmp_path / "mine"
    with pytest.raises(DataError, match="mine"):
        find_image_folder([("a.jpg",)], near, str(tmp_path / "mine"))
    with pytest.raises(DataError, match="image_root must be a folder; got"):
        find_image_folder([("a.jpg",)], near, str(tmp_path / "none"))
    assert find_image_folder([], near) == tmp_path
