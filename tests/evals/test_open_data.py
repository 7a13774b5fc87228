"""What an eval is run on, opened by its path."""

import gc

import pytest

from diptych.core.errors import ConfigError, DataError
from diptych.data.dataset import Dataset
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.source import open_source
from diptych.data.unpacked import Unpacked
from diptych.evals.open_data import beside, open_data, split_spec
from tests.data import benchmark_files


def test_nothing_there_is_said(tmp_path):
    with pytest.raises(DataError, match="must be a"):
        open_data(tmp_path / "absent")
    (tmp_path / "odd.docx").write_bytes(b"x")
    with pytest.raises(
        DataError, match=r"no packed dataset \(it holds no dataset.json\), and a source must be a folder"
    ):
        open_data(tmp_path / "odd.docx")


def test_a_packed_dataset_and_what_it_was_packed_from(tmp_path):
    path = benchmark_files.sugarcrepe(tmp_path / "in")
    pack(open_source(path), tmp_path / "out", PackConfig(jobs=1, vocab_size=300, val=0.0))
    packed, unpacked = open_data(tmp_path / "out"), open_data(path)
    assert isinstance(packed, Dataset)
    assert isinstance(unpacked, Unpacked)
    assert packed.split("train").uid(0) == unpacked.split("test").uid(0)
    with pytest.raises(DataError, match="without options; got image_root"):
        open_data(tmp_path / "out", image_root="x")


def test_options_stand_behind_commas_and_can_be_opened_again(tmp_path):
    path = benchmark_files.coco(tmp_path / "a")
    (tmp_path / "a" / "val2017").rename(tmp_path / "photos, old")
    with pytest.raises(DataError, match="image_root=DIR"):
        open_data(path)
    spec = f"{path},image_root={tmp_path / 'photos, old'},instances=instances_val2017.json"
    data = open_data(spec)
    assert str(data.path) == spec
    assert data.split("test").meta(0)["objects"] == ["potted plant", "cat"]
    assert open_data(data.path) is data is open_data(data.split("test").path)
    same = open_data(path, image_root=str(tmp_path / "photos, old"), instances="instances_val2017.json")
    assert same is data
    with pytest.raises(ConfigError, match="no_such, which would have no effect"):
        open_data(f"{path},no_such=1")
    with pytest.raises(ConfigError, match="crop must be a valid boolean"):
        open_data(f"{benchmark_files.aro(tmp_path)},crop=perhaps")


def test_a_path_with_a_comma_is_a_path(tmp_path):
    path = benchmark_files.sugarcrepe(tmp_path / "mine,test=1")
    assert split_spec(path) == (str(path), {})
    assert len(open_data(path).split("test")) == 3


def test_what_no_one_holds_is_read_anew(tmp_path):
    path = benchmark_files.sugarcrepe(tmp_path)
    first = open_data(path).fingerprint
    gc.collect()
    benchmark_files.sugarcrepe(tmp_path, count=2)
    assert open_data(path).fingerprint != first


def test_files_beside_the_data(tmp_path):
    root = benchmark_files.clip_benchmark(tmp_path / "wds")
    for spec in (root, root / "test", f"{root},task=classification"):
        assert beside(spec, "classes.txt", "classnames.txt") == root / "classnames.txt"
    path = benchmark_files.sugarcrepe(tmp_path)
    (tmp_path / "classes.txt").write_text("a")
    assert beside(path, "classes.txt", "classnames.txt") == tmp_path / "classes.txt"
    assert beside(f"{path},test=x", "classes.txt") == tmp_path / "classes.txt"
    assert beside(path, "templates.txt") is None
    assert beside(None, "classes.txt") is None
