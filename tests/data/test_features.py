import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from diptych.core.errors import DataError
from diptych.core.seeds import fold
from diptych.data.dataset import Split
from diptych.data.features import FeatureTable, TableSpec, check_uids, damaged_chunks, gather_features, span, views_of
from tests.data import tiny_split
from tests.data.feature_rows import IMAGES, TEXTS, image_row, text_row, tiny_table


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return tiny_split.opened(tmp_path_factory.mktemp("features") / "train", 7)


@pytest.fixture(scope="module")
def images(split: Split) -> FeatureTable:
    return tiny_table(split, IMAGES)


@pytest.fixture(scope="module")
def texts(split: Split) -> FeatureTable:
    return tiny_table(split, TEXTS)


def test_rows_are_found_by_record_and_view(images: FeatureTable) -> None:
    assert (images.width, images.copies, images.kind, images.bad) == (4, 3, "image", {})
    found = images.gather([5, 0, 5], [2, 0, 1])
    assert found.dtype == torch.float32
    assert found.tolist() == [image_row(5, 2), image_row(0, 0), image_row(5, 1)]
    assert torch.equal(images.gather(np.array([5, 0, 5]), np.array([2, 0, 1])), found)


def test_rows_and_notes_of_texts_are_found_by_record_and_caption(texts: FeatureTable) -> None:
    assert texts.gather([6, 1], [1, 0]).tolist() == [text_row(6, 1), text_row(1, 0)]
    assert texts.notes([6, 1], [1, 0]).tolist() == [[601, 1], [100, 0]]


def test_a_batch_takes_its_captions_and_the_views_that_its_keys_draw(images: FeatureTable, texts: FeatureTable) -> None:
    keys = [fold(0, "augment", n) for n in range(7)]
    records, captions = np.arange(7)[::-1].copy(), np.array([0, 1, 0, 1, 0, 1, 0])
    found = gather_features({"image": images, "teacher_text": texts}, records, captions, keys)
    drawn = views_of(keys, 3)
    assert found["image"].tolist() == [image_row(r, int(j)) for r, j in zip(records, drawn, strict=True)]
    assert found["teacher_text"].tolist() == [text_row(r, c) for r, c in zip(records, captions, strict=True)]


def test_views_are_drawn_alike_by_each_key_alone_and_all_come() -> None:
    keys = [fold(0, "augment", n) for n in range(300)]
    drawn = views_of(keys, 3)
    assert drawn.tolist() == [int(views_of([k], 3)[0]) for k in keys]
    assert np.bincount(drawn, minlength=3).min() > 70
    assert views_of(keys, 1).max() == 0


def test_a_spawned_worker_maps_the_files_itself(texts: FeatureTable) -> None:
    data = pickle.dumps(texts)
    assert len(data) < 2000
    assert torch.equal(pickle.loads(data).gather([3], [1]), texts.gather([3], [1]))


def test_half_precision_comes_back_as_float32(split: Split, tmp_path: Path) -> None:
    spec = TableSpec("f16", "tower", "image", 4, "float16", copies=3, chunk=2)
    table = tiny_table(split, spec, tmp_path)
    assert table.gather([1], [1]).dtype == torch.float32
    assert (table.folder / "rows.npy").stat().st_size < 7 * 3 * 4 * 2 + 200


def test_damage_and_other_data_are_noticed(split: Split, tmp_path: Path) -> None:
    table = tiny_table(split, IMAGES, tmp_path / "a")
    checks = table.info["crc"]
    assert damaged_chunks(table.folder, IMAGES, split, checks) == []
    path = table.folder / "rows.npy"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    assert damaged_chunks(table.folder, IMAGES, split, checks) == [3]
    path.write_bytes(raw[:-8])
    assert damaged_chunks(table.folder, IMAGES, split, checks) == [0, 1, 2, 3]
    other = tiny_split.opened(tmp_path / "other", 6)
    with pytest.raises(DataError, match=r"its uids are others.*delete the folder"):
        check_uids(table.folder, other)
    (table.folder / "uids.npy").write_bytes(b"torn")
    with pytest.raises(DataError, match="delete the folder"):
        check_uids(table.folder, split)


def test_spans_and_the_description(split: Split, texts: FeatureTable) -> None:
    assert span(IMAGES, None, 2, 4) == (6, 6)
    assert span(TEXTS, np.array([0, 2, 5, 6]), 1, 3) == (2, 4)
    info = json.loads((texts.folder / "table.json").read_text())
    assert {k: info[k] for k in TEXTS.described()} == TEXTS.described()
