"""Opening a packed dataset, and what it says when it cannot."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from diptych.core.errors import DataError, ShardError
from diptych.core.record import Record, Segment
from diptych.data import dataset as module
from diptych.data.dataset import Dataset, Split
from diptych.data.pack import PackConfig, pack
from diptych.data.selection import Selection
from diptych.data.shard_index import index_path
from diptych.data.sources.source import FromRecords
from tests.data import tiny_pages
from tests.data.curation_pools import packed_pool
from tests.data.pictures import png

RECORDS = [
    Record.pair(f"k.{i}", png(i, width=32 + i), "png", (f"caption {i}", "other"), (0.5, 0.5), {"i": i})
    for i in range(30)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dataset") / "out"
    pack(FromRecords(lambda: RECORDS), out, PackConfig(jobs=1, val=0.3, records_per_shard=7, vocab_size=300))
    return out


def test_everything_is_reachable(folder: Path) -> None:
    data = Dataset.open(folder)
    assert set(data.splits) == {"train", "val"}
    by_uid = {r.uid: r for r in RECORDS}
    seen = []
    for split in data.splits.values():
        for i in range(len(split)):
            record = by_uid[split.uid(i)]
            seen.append(record.key)
            assert split.record(i) == record
            assert split.captions(i) == record.segments[1].texts
            assert split.texts(i) == (record.segments[1].texts, (0.5, 0.5))
            assert split.meta(i) == record.meta
            assert split.image_bytes(i) == record.segments[0].data
            assert split.image_size(i) == (32 + record.meta["i"], 24)
            assert split.image_id(i) == split.image_ids()[i]
            assert split.key(i).startswith("k_")
    assert sorted(seen) == sorted(r.key for r in RECORDS)
    assert data.tokenizer().vocab_size <= 300
    assert len(data.fingerprint) == 32
    assert data.split("val").name == "val"


def test_many_shards_do_not_hold_many_maps(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OPEN", 2)
    split = Dataset.open(folder).splits["train"]
    assert len(split.shards) > 2
    for i in np.random.default_rng(0).permutation(len(split)).tolist():
        assert split.record(i).uid == split.uid(i)
        assert sum(r.is_open for r in split._readers) <= 2


def test_splits_travel_to_other_processes(folder: Path) -> None:
    split = Dataset.open(folder).splits["train"]
    split.record(0)
    assert pickle.loads(pickle.dumps(split)).record(3) == split.record(3)


def test_places_outside_are_errors(folder: Path) -> None:
    split = Dataset.open(folder).splits["train"]
    for i in (-1, len(split)):
        for method in (split.record, split.uid, split.captions, split.image_size):
            with pytest.raises(IndexError):
                method(i)


def test_a_folder_that_is_no_dataset_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Run `diptych pack .*--out DIR`"):
        Dataset.open(tmp_path)
    with pytest.raises(DataError, match="which is no folder"):
        Dataset.open(tmp_path / "nothing")
    for text in ("{", "[]", '{"format": 1}'):
        (tmp_path / "dataset.json").write_text(text)
        with pytest.raises(DataError, match="must be what diptych wrote"):
            Dataset.open(tmp_path)
    (tmp_path / "dataset.json").write_text('{"format": 99, "splits": {}}')
    with pytest.raises(DataError, match=r"format 1; got 99"):
        Dataset.open(tmp_path)


def test_an_unknown_split_says_which_there_are(folder: Path) -> None:
    with pytest.raises(DataError, match="one of train, val; got 'test'"):
        Dataset.open(folder).split("test")


def test_a_mixed_up_folder_is_noticed(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    info = json.loads((copy / "dataset.json").read_text())
    info["splits"]["train"]["shards"][0]["records"] += 1
    (copy / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(ShardError, match=r"as dataset.json says"):
        Dataset.open(copy)
    index_path(copy / "train" / "00000.tar").unlink()
    with pytest.raises(ShardError, match=r"must exist beside its tar"):
        Dataset.open(copy)


def test_foreign_tars_are_indexed_where_needed(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "train" / "00000.tar", tmp_path / "a.tar")
    split = Split.from_tars("train", [tmp_path / "a.tar"])
    assert (tmp_path / "a.index.npz").exists()
    assert split.record(2) == Dataset.open(folder).splits["train"].record(2)


def test_a_record_without_an_image_or_captions(tmp_path: Path) -> None:
    records = [
        Record("text", (Segment("text", ("alone",), "txt", "caption"),)),
        Record("image", (Segment("image", png(1), "png", "image"),)),
    ]
    pack(FromRecords(lambda: records), tmp_path / "o", PackConfig(jobs=1, val=0, images_only=True, tokenizer="none"))
    data = Dataset.open(tmp_path / "o")
    split = data.splits["train"]
    with pytest.raises(DataError, match="must hold an image"):
        split.image_bytes(0)
    assert split.image_size(0) == (0, 0)
    assert split.captions(1) == ()
    with pytest.raises(DataError, match=r"must hold a tokenizer.json"):
        data.tokenizer()


@pytest.mark.parametrize(
    "change",
    [
        lambda info: info.pop("fingerprint"),
        lambda info: info["splits"].update(train=["00000.tar"]),
        lambda info: info["splits"]["train"]["shards"][0].pop("records"),
        lambda info: info["splits"]["train"]["shards"][0].update(name="../train/00000.tar"),
        lambda info: info["splits"].update({"../x": info["splits"]["train"]}),
    ],
)
def test_a_damaged_description_is_named(folder: Path, tmp_path: Path, change) -> None:
    info = json.loads((folder / "dataset.json").read_text())
    change(info)
    (tmp_path / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match=r"dataset.json must be what diptych wrote"):
        Dataset.open(tmp_path)


def test_records_of_any_number_of_images(tmp_path: Path) -> None:
    split = tiny_pages.opened(tmp_path)
    records = tiny_pages.RECORDS
    images = [[s.data for s in r.segments if s.modality == "image"] for r in records]
    assert split.image_counts().tolist() == [len(found) for found in images]
    for i, found in enumerate(images):
        assert split.images_of(i) == max(1, len(found))
        assert [split.image_bytes(i, number) for number in range(len(found))] == found
        assert len(split.pieces(i).images) == len(found)
    with pytest.raises(DataError, match="must hold an image of number 3; it holds none"):
        split.image_bytes(4, 3)
    assert split.parts == ((1.0, 0, len(records)),)


def test_a_selection_is_a_split_of_its_records(tmp_path):
    path = packed_pool(tmp_path / "d", [[f"caption {i}"] for i in range(10)], per_shard=4)
    whole = Dataset.open(path).split("train")
    wanted = [1, 4, 5, 9]
    some = whole.selected(Selection.of(whole.uid(i) for i in wanted))
    assert len(some) == 4
    assert [some.captions(i) for i in range(4)] == [whole.captions(i) for i in wanted]
    assert [some.uid(i) for i in range(4)] == [whole.uid(i) for i in wanted]
    assert [some.image_bytes(i) for i in range(4)] == [whole.image_bytes(i) for i in wanted]
    assert some.uids().tobytes() == whole.uids()[wanted].tobytes()
    assert some.image_ids().tolist() == whole.image_ids()[wanted].tolist()
    assert some.image_ids(np.array([3, 0])).tolist() == whole.image_ids()[[9, 1]].tolist()
    assert some.image_counts().tolist() == [1] * 4
    assert some.selected(Selection.of([whole.uid(4), whole.uid(0)])).captions(0) == ("caption 4",)
    assert whole.selection_hash == ""
    assert some.selection_hash not in ("", whole.selected(Selection.of([whole.uid(4)])).selection_hash)
    with pytest.raises(IndexError):
        some.captions(4)
    with pytest.raises(DataError, match="of which none is here"):
        whole.selected(Selection.of(["0" * 32]))
