"""Cells of tables as images, captions, meta and splits."""

from pathlib import Path

import pytest

from diptych.core.record import Record
from diptych.data.rows import choose_columns, class_names, image_bytes, meta_of, row_to_record, split_of_path, texts_of
from diptych.data.sources.source import Reject
from tests.data.pictures import png


def test_usual_names_are_found_in_any_case() -> None:
    got = choose_columns(["ID", "Filename", "Description", "Split"], "t")
    assert (got.image, got.captions, got.split) == ("Filename", ("Description",), "Split")
    assert choose_columns(["image", "x"], "t", images_only=True).captions == ()


@pytest.mark.parametrize(
    ("value", "want"),
    [
        ("a", ("a",)),
        ('["a", "b"]', ("a", "b")),
        ("[1]", ("[1]",)),
        (["a", ["b", None]], ("a", "b")),
        ({"raw": "a", "id": 3}, ("a",)),
        (None, ()),
        (float("nan"), ()),
        (7, ("7",)),
        (1, ("big dog",)),
    ],
)
def test_captions_of_a_cell(value: object, want: tuple[str, ...]) -> None:
    assert texts_of(value, ("cat", "big_dog")) == want


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("http://a/b.png", "is_url"),
        ("data:image/png;base64,AAAA", "is_url"),
        ("", "no_image"),
        (None, "no_image"),
        ({"bytes": None, "path": None}, "no_image"),
        (3, "bad_row"),
        ([b"a", b"b"], "bad_row"),
        (b"x" * 99, "too_many_bytes"),
        ("gone.png", "file_not_found"),
    ],
)
def test_images_that_cannot_be_had(value: object, reason: str, tmp_path: Path) -> None:
    got = image_bytes(value, "k", "row 3", tmp_path, 50)
    assert isinstance(got, Reject)
    assert (got.reason, got.where) == (reason, "row 3")


def test_paths(tmp_path: Path) -> None:
    (tmp_path / "a b.png").write_bytes(png())
    for value in ("a b.png", f"file://{tmp_path}/a b.png", str(tmp_path / "a b.png"), " a b.png "):
        got = image_bytes(value, "k", "w", tmp_path, 10_000)
        assert not isinstance(got, Reject)
        assert got[0] == png()


def test_meta_is_plain_and_short() -> None:
    row = {
        "image": "x",
        "caption": "c",
        "n": 3,
        "f": 0.5,
        "nan": float("nan"),
        "s": "t",
        "long": "x" * 9999,
        "deep": [1],
        "face_bboxes": [[0, 0.5, 1, 1]],
    }
    kept = {"n": 3, "f": 0.5, "s": "t", "image": "p.png", "face_bboxes": [[0, 0.5, 1, 1]]}
    assert meta_of(row, choose_columns(list(row), "t"), "p.png") == kept
    assert (
        meta_of({"image": "x", "caption": "c", "Split": "dev"}, choose_columns(["image", "caption", "Split"], "t"), "")[
            "split"
        ]
        == "dev"
    )


def test_a_row(tmp_path: Path) -> None:
    got = row_to_record(
        {"image": png(), "caption": "c"}, choose_columns(["image", "caption"], "t"), "k", "w", tmp_path, 9999
    )
    assert got == Record.pair("k", png(), "jpg", ("c",))


def test_splits_of_paths() -> None:
    assert split_of_path(["train-00000-of-00001.parquet"]) == "train"
    assert split_of_path(["data", "Validation", "x"]) == "val"
    assert split_of_path(["test.parquet"]) == "test"
    assert split_of_path(["testimony.tar", "trainers", "eval-set"]) is None


def test_class_names() -> None:
    assert class_names({"a": {"_type": "ClassLabel", "names": ["x"]}, "b": {"_type": "Value"}, "c": [1]}) == {
        "a": ["x"]
    }
    assert class_names(None) == {}
