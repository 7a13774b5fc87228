"""COCO's annotation files, and Karpathy's splits."""

import json
from pathlib import Path

import pytest

from diptych.core.errors import DataError
from diptych.core.record import Record
from diptych.data.decode import MAX_BYTES
from diptych.data.sources.coco import Coco
from diptych.data.sources.source import Reject, open_source
from tests.data import benchmark_files
from tests.data.pictures import png


def test_captions_of_an_image_are_one_record(tmp_path: Path) -> None:
    source = open_source(benchmark_files.coco(tmp_path))
    assert isinstance(source, Coco)
    first, *_, last = source.records()
    assert isinstance(first, Record)
    assert isinstance(last, Record)
    assert (first.key, first.segments[0].data, first.segments[0].format) == ("0", png(0), "jpg")
    assert first.segments[1].texts == ("caption 0", "caption 3")
    assert last.segments[1].texts == ("caption 2", "caption 5")
    assert first.meta == {"license": 3, "height": 24, "width": 32, "image_id": 0, "image": "000000000000.jpg"}
    assert source.where("0").endswith("captions_val2017.json image 0")


def test_instances_beside_the_captions(tmp_path: Path) -> None:
    path = benchmark_files.coco(tmp_path)
    first, second, _ = open_source(path, instances="instances_val2017.json").records()
    assert isinstance(first, Record)
    assert isinstance(second, Record)
    assert first.meta["objects"] == ["potted plant", "cat"]
    assert first.meta["boxes"] == [
        {"name": "potted plant", "box": [1, 2, 11, 7.5]},
        {"name": "cat", "box": [0, 0, 9, 9], "crowd": True},
        {"name": "potted plant", "box": [3, 3, 7, 7]},
    ]
    assert first.segments[1].texts == ("caption 0", "caption 3")
    assert (second.meta["objects"], second.meta["boxes"]) == ([], [])
    alone = next(iter(open_source(path.with_name("instances_val2017.json")).records()))
    assert isinstance(alone, Record)
    assert [s.modality for s in alone.segments] == ["image"]
    both = open_source(path.with_name("instances_val2017.json"), captions=path.name)
    assert list(both.records()) == list(open_source(path, instances="instances_val2017.json").records())


def test_karpathy_splits(tmp_path: Path) -> None:
    found = list(open_source(benchmark_files.karpathy(tmp_path)).records())
    assert [r.meta["split"] for r in found if isinstance(r, Record)] == ["train", "val", "test"]
    assert [r.segments[1].texts for r in found if isinstance(r, Record)] == [(f"caption {i}",) for i in range(3)]


def test_karpathy_coco_has_folders_of_its_own(tmp_path: Path) -> None:
    benchmark_files.pictures(tmp_path / "images", "val2014/a.jpg")
    image = {"cocoid": 7, "imgid": 0, "filepath": "val2014", "filename": "a.jpg", "sentences": [{"raw": "One."}]}
    path = benchmark_files.write(tmp_path / "dataset_coco.json", {"images": [image], "dataset": "coco"})
    (found,) = open_source(path).records()
    assert isinstance(found, Record)
    assert found.meta == {"cocoid": 7, "image_id": 7, "image": "val2014/a.jpg"}


def test_a_missing_folder_is_one_error_and_a_missing_file_one_reject(tmp_path: Path) -> None:
    path = benchmark_files.coco(tmp_path, count=2, lost=1)
    *_, lost = open_source(path).records()
    assert isinstance(lost, Reject)
    assert (lost.key, lost.reason) == ("2", "file_not_found")
    (tmp_path / "val2017").rename(tmp_path.parent / f"{tmp_path.name}-elsewhere")
    with pytest.raises(DataError, match=r"none of the first 3 .* Say where they are: image_root=DIR"):
        list(open_source(path).records())
    moved = open_source(path, image_root=str(tmp_path.parent / f"{tmp_path.name}-elsewhere"))
    assert len([r for r in moved.records() if isinstance(r, Record)]) == 2


def test_images_with_one_id_or_without_a_name_are_rejected(tmp_path: Path) -> None:
    path = benchmark_files.coco(tmp_path)
    value = json.loads(path.read_text())
    value["images"][1]["id"] = 0
    value["images"][2]["file_name"] = ""
    path.write_text(json.dumps(value))
    assert [getattr(r, "reason", "") for r in open_source(path).records()] == ["", "duplicate_key", "no_image"]


def test_a_file_that_is_cut_off_or_holds_other_things_says_so(tmp_path: Path) -> None:
    path = benchmark_files.coco(tmp_path)
    text = path.read_text()
    path.write_text(text[:-9])
    with pytest.raises(DataError, match=r"a COCO file must be JSON; got .* Download it again"):
        list(open_source(path).records())
    path.write_text(text.replace('"images"', '"pictures"'))
    with pytest.raises(DataError, match="must hold a list of objects called 'images'; got 'info'"):
        list(open_source(path).records())
    path.write_text(text.replace('"annotations": [', '"annotations": [7, '))
    with pytest.raises(DataError, match=r"an annotation of .* must be an object; got 7"):
        list(open_source(path).records())


def test_agrees_with_pycocotools(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    path = benchmark_files.coco(tmp_path)
    theirs, boxes = coco.COCO(str(path)), coco.COCO(str(path.with_name("instances_val2017.json")))
    for record in open_source(path, instances="instances_val2017.json").records():
        assert isinstance(record, Record)
        number = record.meta["image_id"]
        assert record.meta["image"] == theirs.loadImgs(number)[0]["file_name"]
        assert list(record.segments[1].texts) == [a["caption"] for a in theirs.imgToAnns[number]]
        names = [boxes.loadCats(a["category_id"])[0]["name"] for a in boxes.imgToAnns[number]]
        assert [b["name"] for b in record.meta["boxes"]] == names


def test_too_large_an_image(tmp_path: Path) -> None:
    source = open_source(benchmark_files.coco(tmp_path))
    assert source.max_bytes == MAX_BYTES
    source.max_bytes = 10
    assert {r.reason for r in source.records() if isinstance(r, Reject)} == {"too_many_bytes"}
