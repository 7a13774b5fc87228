"""Winoground's examples."""

from pathlib import Path

import pytest

from diptych.core.errors import DataError
from diptych.core.record import Record
from diptych.data.dataset import Dataset
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.source import open_source
from diptych.data.sources.winoground import Winoground
from tests.data import benchmark_files
from tests.data.pictures import png


def test_two_images_and_two_captions(tmp_path: Path) -> None:
    source = open_source(benchmark_files.winoground(tmp_path))
    assert isinstance(source, Winoground)
    _, second = source.records()
    assert isinstance(second, Record)
    assert [s.modality for s in second.segments] == ["image", "text", "image", "text"]
    assert (second.segments[0].data, second.segments[2].data) == (png(2), png(3))
    assert (second.segments[1].texts, second.segments[3].texts) == (("caption 2",), ("caption 3",))
    meta = {"id": 1, "tag": "Noun", "num_main_preds": 1, "collapsed_tag": "Object"}
    assert second.meta == {**meta, "test": "winoground", "tags": ["Object", "Noun"]}


def test_a_folder_is_its_examples(tmp_path: Path) -> None:
    path = benchmark_files.winoground(tmp_path / "data")
    assert list(open_source(tmp_path / "data").records()) == list(open_source(path).records())


def test_packed_and_read_again(tmp_path: Path) -> None:
    source = open_source(benchmark_files.winoground(tmp_path / "in"), test="mine")
    pack(source, tmp_path / "out", PackConfig(jobs=1, vocab_size=300, val=0.0))
    split = Dataset.open(tmp_path / "out").split("train")
    assert (len(split), split.images_of(0), split.meta(0)["test"]) == (2, 2, "mine")
    assert (split.image_bytes(0, 0), split.image_bytes(0, 1)) == (png(0), png(1))
    assert [t.texts for t in split.pieces(0).texts] == [("caption 0",), ("caption 1",)]
    assert split.pieces(0).images == (0, 1)


def test_what_is_missing(tmp_path: Path) -> None:
    path = benchmark_files.winoground(tmp_path, count=1, lost=1)
    row = {"image_0": "ex_0_img_0", "image_1": "ex_0_img_1", "caption_0": "", "caption_1": "x"}
    with open(path, "a") as file:
        file.write(str(row).replace("'", '"') + "\n")
    assert [getattr(r, "reason", "") for r in open_source(path).records()] == ["", "file_not_found", "bad_row"]
    (tmp_path / "images" / "ex_0_img_0.png").unlink()
    with pytest.raises(DataError, match="image_root=DIR"):
        list(open_source(path).records())
