"""Folders of images as people keep them."""

import json
import os
from pathlib import Path

import pytest

from diptych.core.errors import DataError
from diptych.core.record import Record
from diptych.data.dataset import Dataset
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.folder import FolderConfig
from diptych.data.sources.source import Reject, open_source
from tests.data import benchmark_files
from tests.data.pictures import jpg, png


def put(root: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def read(root: Path, **options: object) -> dict[str, Record | Reject]:
    return {item.key: item for item in FolderConfig(path=str(root), **options).build().records()}


def captions(item: Record | Reject) -> tuple[str, ...]:
    assert isinstance(item, Record), item
    text = item.first("text")
    return text.texts if text is not None else ()


def test_captions_beside_images(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "a.jpg": jpg(),
            "a.txt": "\ufeffa cat\n on a mat \n",
            "photo.v2.png": png(),
            "photo.v2.json": json.dumps({"captions": ["one", "two"], "weights": [0.8, 0.2], "artist": "me"}),
            "sub/c.png": png(1),
            "sub/c.json": json.dumps(["three"]),
            "sub/d.png": png(2),
            "sub/d.json": json.dumps({"text": "four"}),
            "README.txt": "about",
            "none.png": png(3),
            ".hidden.png": png(4),
        },
    )
    got = read(tmp_path)
    assert list(got) == ["a", "none", "photo.v2", "sub/c", "sub/d"]
    assert captions(got["a"]) == ("a cat on a mat",)
    assert captions(got["photo.v2"]) == ("one", "two")
    assert captions(got["sub/c"]) == ("three",)
    assert captions(got["sub/d"]) == ("four",)
    assert captions(got["none"]) == ()
    two = got["photo.v2"]
    assert isinstance(two, Record)
    assert two.segments[1].weights == (0.8, 0.2)
    assert two.meta == {"artist": "me", "image": "photo.v2.png"}


def test_a_line_a_caption_on_request(tmp_path: Path) -> None:
    put(tmp_path, {"a.jpg": jpg(), "a.txt": "one\ntwo\n"})
    assert captions(read(tmp_path, caption_lines=True)["a"]) == ("one", "two")


def test_bad_captions_are_named(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "a.jpg": jpg(),
            "a.json": "{",
            "b.jpg": jpg(),
            "b.txt": b"caf\xe9",
            "lost.txt": "no image",
            "c.jpg": jpg(),
            "c.txt": "x" * (2 << 20),
        },
    )
    got = read(tmp_path)
    reasons = {k: v.reason for k, v in got.items() if isinstance(v, Reject)}
    assert reasons == {"a": "bad_json", "b": "bad_text", "lost.txt": "no_image", "c": "bad_caption_file"}


def test_folders_as_captions(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "train/golden_retriever/1.jpg": jpg(1),
            "train/cat/1.jpg": jpg(2),
            "val/cat/1.jpg": jpg(3),
            "val/stray.jpg": jpg(4),
        },
    )
    got = read(tmp_path)
    assert captions(got["train/golden_retriever/1"]) == ("golden retriever",)
    assert captions(got["val/stray"]) == ()
    item = got["val/cat/1"]
    assert isinstance(item, Record)
    assert item.meta == {"image": "val/cat/1.jpg", "split": "val", "label": "cat"}


def test_one_split_folder_is_no_split(tmp_path: Path) -> None:
    put(tmp_path, {"train/a.jpg": jpg(), "train/a.txt": "a"})
    item = read(tmp_path)["train/a"]
    assert isinstance(item, Record)
    assert "split" not in item.meta  # so that --val can still hold some out


def test_images_of_one_name_keep_apart(tmp_path: Path) -> None:
    put(tmp_path, {"a.jpg": jpg(), "a.png": png(), "a.txt": "both"})
    assert list(read(tmp_path)) == ["a.jpg", "a.png"]


def test_images_that_we_cannot_read_are_not_overlooked(tmp_path: Path) -> None:
    put(tmp_path, {"a.jpg": jpg(), "a.txt": "a", "b.heic": b"\0\0\0\0ftypheic", "b.txt": "b", "c.svg": b"<svg/>"})
    assert list(read(tmp_path)) == ["a", "b", "c"]


def test_a_table_beside_the_images_is_pointed_at(tmp_path: Path) -> None:
    put(tmp_path, {"img/a.jpg": jpg(), "captions.csv": "image,caption\n"})
    with pytest.raises(DataError, match=r"take .*captions.csv instead"):
        read(tmp_path)


def test_links_are_followed_but_not_round_in_a_circle(tmp_path: Path) -> None:
    put(tmp_path / "far", {"a.jpg": jpg(), "a.txt": "a"})
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "linked").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "back").symlink_to(tmp_path / "far")
    assert list(read(tmp_path / "here")) == ["linked/a"]


def test_images_only(tmp_path: Path) -> None:
    put(tmp_path, {"x/a.jpg": jpg(), "x/b.jpg": jpg(1)})
    got = read(tmp_path, images_only=True)
    assert [captions(v) for v in got.values()] == [(), ()]


def test_names_that_are_no_utf_8_are_packed(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path / "in")
    os.makedirs(root + b"/f\xfcr")
    for i in range(2):
        stem = root + b"/f\xfcr/caf\xe9 %d" % i
        with open(stem + b".png", "wb") as image, open(stem + b".txt", "wb") as text:
            image.write(png(i))
            text.write(b"a cafe")
    report = pack(open_source(tmp_path / "in"), tmp_path / "out", PackConfig(jobs=1, vocab_size=300, val=0))
    assert (report.kept, report.rejected) == (2, 0)
    record = Dataset.open(tmp_path / "out").split("train").record(0)
    assert record.key == r"f\udcfcr/caf\udce9 0"
    assert record.meta["image"] == r"f\udcfcr/caf\udce9 0.png"


def test_a_benchmarks_file_in_the_folder_is_asked_for(tmp_path: Path) -> None:
    path = benchmark_files.coco(tmp_path)
    with pytest.raises(DataError, match=r"holds none, but annotations/captions_val2017.json. .* take .* instead"):
        read(tmp_path)
    (first, *_) = read(tmp_path, captions="folders").values()
    assert isinstance(first, Record)
    assert first.meta["label"] == "val2017"
    for file in path.parent.iterdir():
        file.write_text('{"about": "nothing known"}')
    assert len(read(tmp_path)) == 3
