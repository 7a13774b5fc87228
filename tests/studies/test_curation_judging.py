"""What is judged on: held-out images without copies, each with the hits of its own."""

from pathlib import Path

import numpy as np
import pytest

from diptych.core.errors import ConfigError
from diptych.core.record import Record
from diptych.data.dataset import Dataset
from diptych.data.decode import decode_image, encode_jpeg
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.source import FromRecords
from diptych.models.pretrained import Pretrained
from diptych.studies import curation_judging as module
from diptych.studies.curation_judging import METRICS, judge, judged_once, judged_uids
from tests.studies.curated_pool import LEAKED, TEST, curated_pool, picture
from tests.studies.tiny_clip import tiny_clip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.open(curated_pool(tmp_path_factory.mktemp("judging") / "pool"))


def test_copies_of_training_images_are_left_out_and_counted(data: Dataset) -> None:
    found = judged_uids(data, "test")
    held = data.split("test")
    assert (found["of"], found["copies"], found["unfit"]) == (TEST, LEAKED, 0)
    assert found["uids"] == [held.uid(i) for i in range(TEST - LEAKED)]


def test_of_held_out_images_that_look_alike_the_first_is_judged_on(tmp_path: Path) -> None:
    shown = [picture(i, "red") for i in range(4)]
    records = [Record.pair("train", picture(9, "red"), "png", ("train",), meta={"split": "train"})]
    for i, image in enumerate([*shown, shown[1], encode_jpeg(decode_image(shown[2]), 90, "444")]):
        records.append(Record.pair(f"{i}", image, "png" if i < 5 else "jpg", (f"test {i}",), meta={"split": "test"}))
    pack(FromRecords(lambda: records), tmp_path / "d", PackConfig(val=0, jobs=1, tokenizer="none"))
    data = Dataset.open(tmp_path / "d")
    found = judged_uids(data, "test")
    assert (found["copies"], found["alike"]) == (0, 2)
    assert found["uids"] == [data.split("test").uid(i) for i in range(4)]


def test_it_is_found_once(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "judged" / "pool.json"
    first = judged_once(data, "test", path)
    monkeypatch.setattr(module, "judged_uids", lambda *_: pytest.fail("looked again"))
    assert judged_once(data, "test", path) == first
    monkeypatch.setattr(module, "judged_uids", lambda *_: {"split": "val", "uids": []})
    assert judged_once(data, "val", path)["split"] == "val"


def test_a_split_of_copies_is_refused(tmp_path: Path) -> None:
    records = [
        Record.pair(f"{split}{i}", picture(i, "red"), "png", (f"{split} {i}",), meta={"split": split})
        for split in ("train", "test")
        for i in range(3)
    ]
    pack(FromRecords(lambda: records), tmp_path / "d", PackConfig(tokenizer="none", jobs=1))
    with pytest.raises(ConfigError, match="at least 2 captioned images that no training image is a copy of"):
        judged_uids(Dataset.open(tmp_path / "d"), "test")


def test_each_item_has_its_hits_and_equal_captions_are_any_hit(data: Dataset) -> None:
    tokenizer = data.tokenizer()
    model = Pretrained(tiny_clip().model.build(tokenizer.vocab_size).eval(), tokenizer)
    uids = [data.split("test").uid(i) for i in (0, 1, 2, TEST - LEAKED - 1)]  # the last one has the first one's caption
    found = judge(model, data.split("test"), uids)
    images, captions = found["ways"]["i2t"], found["ways"]["t2i"]
    assert images["keys"] == uids
    assert len(captions["keys"]) == 4
    assert captions["clusters"][0] == captions["clusters"][3]  # one and the same query
    for way in found["ways"].values():
        for hits in way["hits"].values():
            assert set(hits) <= {0, 1}
            assert len(hits) == len(way["keys"])
    assert np.all(captions["hits"]["t2i_recall_at_5"])
    assert set(found["chance"]) == set(METRICS)
    assert found["chance"]["t2i_recall_at_1"] > 1 / 4  # two images are right for one caption
    assert len(judge(model, data.split("test"), uids, max_items=3)["ways"]["i2t"]["keys"]) == 3
