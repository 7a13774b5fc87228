"""What `datasets` saves, read without it."""

from pathlib import Path

import pytest

from diptych.core.errors import DataError
from diptych.core.record import Record
from diptych.data.sources.source import Reject, open_source
from tests.data.pictures import png

datasets = pytest.importorskip("datasets")


def table(n: int, start: int = 0) -> "datasets.Dataset":
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "big dog"]),
            "n": datasets.Value("int64"),
        }
    )
    rows = range(start, start + n)
    images = [{"bytes": png(i), "path": None} for i in rows]
    return datasets.Dataset.from_dict(
        {"image": images, "label": [i % 2 for i in rows], "n": list(rows)}, features=features
    )


def test_splits_shards_and_labels(tmp_path: Path) -> None:
    saved = datasets.DatasetDict({"train": table(5), "test": table(2, 5)})
    saved.save_to_disk(str(tmp_path / "d"), num_shards={"train": 2, "test": 1})
    got = list(open_source(tmp_path / "d").records())
    assert [r.key for r in got] == [*(f"train-{n:09d}" for n in range(1, 6)), "test-000000001", "test-000000002"]
    last = got[-1]
    assert isinstance(last, Record)
    assert last.segments[0].data == png(6)
    assert last.segments[1].texts == ("cat",)
    assert last.meta == {"n": 6, "label": 0, "split": "test"}


def test_rows_that_were_chosen_and_shuffled(tmp_path: Path) -> None:
    table(6).select([4, 1]).save_to_disk(str(tmp_path / "d"))
    got = list(open_source(tmp_path / "d").records())
    assert [r.segments[0].data for r in got if isinstance(r, Record)] == [png(4), png(1)]


def test_damage_is_named(tmp_path: Path) -> None:
    table(40).save_to_disk(str(tmp_path / "d"))
    (file,) = (tmp_path / "d").glob("*.arrow")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) - 3000])
    try:
        got = list(open_source(tmp_path / "d").records())
        assert isinstance(got[-1], Reject)
    except DataError as error:
        assert "Save the dataset again" in str(error)  # noqa: PT017 - either is a plain word to the user
    file.unlink()
    with pytest.raises(DataError, match="must list files that are there"):
        list(open_source(tmp_path / "d").records())
    (tmp_path / "d" / "state.json").write_text("[")
    with pytest.raises(DataError, match="readable JSON"):
        list(open_source(tmp_path / "d").records())
