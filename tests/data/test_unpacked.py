"""Data that is evaluated on as it lies, beside the same packed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diptych.core.errors import DataError
from diptych.core.image_format import ImageFormat
from diptych.core.record import Record, Segment
from diptych.data.dataset import Dataset
from diptych.data.image_reader import ImageReader
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.source import FromRecords, Reject, open_source
from diptych.data.unpacked import Unpacked
from tests.data import benchmark_files
from tests.data.pictures import BROKEN, png


def opened(*items: Record | Reject) -> Unpacked:
    return Unpacked.open(FromRecords(lambda: items))


def pair(i: int, *captions: str, **meta: Any) -> Record:
    return Record.pair(f"k{i}", png(i), "png", captions, meta=meta)


MAKERS = {
    "coco": benchmark_files.coco,
    "vqa": benchmark_files.vqa,
    "winoground": benchmark_files.winoground,
    "foils": benchmark_files.sugarcrepe,
    "aro": benchmark_files.aro,
    "pope": benchmark_files.pope,
    "clip_benchmark": lambda root: benchmark_files.clip_benchmark(root, "retrieval"),
}


@pytest.mark.parametrize("name", MAKERS)
def test_reads_what_the_packed_reads(tmp_path: Path, name: str) -> None:
    path = MAKERS[name](tmp_path / "in")
    pack(open_source(path), tmp_path / "out", PackConfig(jobs=1, vocab_size=300, val=0.0))
    packed = next(iter(Dataset.open(tmp_path / "out").splits.values()))
    ours = Unpacked.open(open_source(path)).split("test")
    assert len(ours) == len(packed)
    if name != "aro":  # whose parts of images are stored as png
        np.testing.assert_array_equal(ours.uids(), packed.uids())
        np.testing.assert_array_equal(ours.image_ids(), packed.image_ids())
        np.testing.assert_array_equal(ours.image_counts(), packed.image_counts())
        assert ours.image_id(1) == packed.image_id(1)
        assert list(ours.image_ids(np.array([1]))) == [packed.image_id(1)]
    for i in range(len(ours)):
        assert ours.texts(i) == packed.texts(i)
        assert ours.captions(i) == packed.captions(i)
        assert ours.pieces(i) == packed.pieces(i)
        assert ours.image_size(i) == packed.image_size(i)
        assert ours.images_of(i) == packed.images_of(i)
        assert {**ours.meta(i), "split": ""} == {**packed.meta(i), "split": ""}
        if name != "aro":
            assert ours.uid(i) == packed.uid(i)
            assert [ours.image_bytes(i, n) for n in range(ours.images_of(i))] == [
                packed.image_bytes(i, n) for n in range(packed.images_of(i))
            ]
            record, other = ours.record(i), packed.record(i)
            assert [s.payload for s in record.segments] == [s.payload for s in other.segments]
            assert [s.role for s in record.segments] == [s.role for s in other.segments]


def test_images_are_read_from_their_files_again(tmp_path: Path) -> None:
    data = Unpacked.open(open_source(benchmark_files.coco(tmp_path))).split("test")
    for file in (tmp_path / "val2017").iterdir():
        file.write_bytes(png(7))
    assert data.image_bytes(1) == png(7)
    file.unlink()
    lost = next(i for i in range(3) if data.meta(i)["image"] == file.name)
    with pytest.raises(DataError, match="must be there as long as it is evaluated on"):
        data.image_bytes(lost)
    reader = ImageReader(data, ImageFormat(resolution=8), 2)
    places = [p for batch in reader.batches(range(3)) for p in batch.places]
    assert (len(places), list(reader.broken)) == (2, [lost])


def test_what_cannot_be_read_again_waits_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path))
    data = opened(*(pair(i, "one") for i in range(3))).split("test")
    assert [data.image_bytes(i) for i in (2, 0, 1)] == [png(2), png(0), png(1)]
    assert list((tmp_path / "unpacked").iterdir()) == []  # the file has no name


def test_nothing_is_deduplicated_and_uids_stay_unique() -> None:
    data = opened(pair(0, "one"), pair(0, "one"), pair(0, "one"), pair(1, "one")).split("test")
    assert (len(data), len({data.uid(i) for i in range(4)})) == (4, 4)
    assert data.uid(0) == pair(0, "one").uid
    assert data.image_id(0) == data.image_id(1)
    assert data.captions(1) == ("one",)


def test_broken_records_are_named_and_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    bad = Record.pair("bad", b"no image", "png", ("x",))
    odd = Record.pair("odd", png(), "png", ("\ud800",))
    unfit = Record.pair("unfit", png(), "png", ("x",), meta={"v": float("nan")})
    data = opened(pair(0, "one"), Reject("lost", "it is gone.", "file_not_found", "there"), bad, odd, unfit)
    assert [(r.key, r.reason) for r in data.rejects] == [
        ("lost", "file_not_found"),
        ("bad", "not_an_image"),
        ("odd", "bad_text"),
        ("unfit", "bad_meta"),
    ]
    assert (data.info["seen"], data.info["kept"]) == (5, 1)
    assert data.info["rejected"] == {"bad_meta": 1, "bad_text": 1, "file_not_found": 1, "not_an_image": 1}
    said = capsys.readouterr().err
    assert said.count("4 of 5 records of records cannot be read and are left out: 1 file_not_found") == 1
    assert "The first: there: it is gone." in said
    with pytest.raises(DataError, match=r"got none that can be read of 1: records: bad: an image must"):
        opened(bad)
    with pytest.raises(DataError, match=r"got none that can be read of 0\."):
        opened()


@pytest.mark.parametrize(
    "kind", [k for k in BROKEN if BROKEN[k][0] in ("empty", "not_an_image", "is_svg", "too_many_pixels")]
)
def test_what_is_no_image_is_rejected_unread(kind: str) -> None:
    reason, make = BROKEN[kind]
    data = opened(pair(0, "one"), Record.pair("bad", make(1), "png", ("x",)))
    assert [r.reason for r in data.rejects] == [reason]


def test_splits_are_the_sources_own() -> None:
    data = opened(
        pair(0, "a"), pair(1, "b", split="Validation"), pair(2, "c", split="testdev"), pair(3, "d", split="train")
    )
    assert list(data.splits) == ["train", "val", "test", "testdev"]
    assert (data.held_out(), data.held_out("testdev")) == ("val", "testdev")
    assert data.info["splits"]["testdev"] == {"records": 1}
    assert data.split("testdev").name == "testdev"
    with pytest.raises(DataError, match="a split of records must be one of train, val, test, testdev; got 'dev'"):
        data.split("dev")
    assert opened(pair(0, "a", split="train")).held_out() == "train"
    with pytest.raises(IndexError, match=r"must be in \[0, 1\); got 1"):
        data.split("val").meta(1)


def test_the_fingerprint_tells_what_numbers_depend_on() -> None:
    base = opened(pair(0, "a", label="x"), pair(1, "b"))
    assert base.fingerprint == opened(pair(0, "a", label="x"), pair(1, "b")).fingerprint
    for other in (
        opened(pair(0, "a", label="y"), pair(1, "b")),
        opened(pair(0, "a", label="x"), pair(1, "c")),
        opened(pair(1, "b"), pair(0, "a", label="x")),
        opened(pair(0, "a", label="x"), pair(1, "b", split="val")),
    ):
        assert other.fingerprint != base.fingerprint


def test_a_record_without_an_image() -> None:
    words = Record("w", (Segment("text", ("only words",), "txt", role="caption"),))
    data = opened(words, Record("i", (Segment("image", png(), "png", role="image"),))).split("test")
    assert (data.image_size(0), data.images_of(0), data.pieces(0).images) == ((0, 0), 1, ())
    assert (data.captions(1), data.texts(1), data.pieces(1).texts) == ((), ((), None), ())
    with pytest.raises(DataError, match=r"record 0 of test \(w\) must hold an image; it holds none"):
        data.image_bytes(0)
    with pytest.raises(DataError, match="an image of number 1"):
        data.image_bytes(1, 1)
    assert data.record(0).segments == words.segments


def test_many_records_do_not_hold_their_images(tmp_path: Path) -> None:
    benchmark_files.pictures(tmp_path, "a.png")
    rows = "".join(json.dumps({"image": "a.png", "caption": f"c{i}"}) + "\n" for i in range(50))
    (tmp_path / "t.jsonl").write_text(rows)
    data = Unpacked.open(open_source(tmp_path / "t.jsonl", merge_rows=False)).split("test")
    held = [s.payload for h in data._held for s in h.segments if isinstance(s.payload, bytes)]
    assert (len(data), set(held)) == (50, {b""})
