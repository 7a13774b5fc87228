import base64

import pytest

from diptych.core.errors import DataError
from diptych.data.dataset import Dataset
from diptych.data.loader import LoaderConfig
from diptych.data.mixture import Part
from diptych.data.ready import open_ready, packed
from tests.report.fake_run import thumb


def test_a_table_is_packed_once_and_found_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "source"
    source.mkdir()
    for i in range(3):
        (source / f"{i}.jpg").write_bytes(base64.b64decode(thumb((80 * i, 10, 10))))
    (source / "pairs.csv").write_text("image,caption\n" + "".join(f"{i}.jpg,thing {i}\n" for i in range(3)))
    first = packed(source / "pairs.csv")
    assert "packing it once" in capsys.readouterr().err
    assert sum(len(s) for s in Dataset.open(first).splits.values()) == 3
    assert packed(source / "pairs.csv") == first
    assert "using the copy packed before" in capsys.readouterr().err
    assert packed(first) == first
    assert capsys.readouterr().err == ""


def test_a_picture_deep_in_a_folder_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "source"
    (source / "cats" / "grey").mkdir(parents=True)
    (source / "cats" / "grey" / "0.jpg").write_bytes(base64.b64decode(thumb((10, 10, 10))))
    first = packed(source)
    (source / "cats" / "grey" / "1.jpg").write_bytes(base64.b64decode(thumb((90, 10, 10))))
    second = packed(source)
    assert first != second
    assert sum(len(s) for s in Dataset.open(second).splits.values()) == 2


def test_what_is_not_there_is_named():
    with pytest.raises(DataError, match="diptych corpus get emoji"):
        packed("no/such/place")


def test_a_run_reads_one_dataset_or_a_mixture_packed_where_needed(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    for name, count in (("a", 3), ("b", 2)):
        (tmp_path / name).mkdir()
        for i in range(count):
            (tmp_path / name / f"{i}.jpg").write_bytes(base64.b64decode(thumb((80 * i, 10 * count, 10))))
        rows = "".join(f"{i}.jpg,thing {i},train\n" for i in range(count))
        (tmp_path / name / "pairs.csv").write_text("image,caption,split\n" + rows)
    a, b = (str(tmp_path / name / "pairs.csv") for name in "ab")
    one = open_ready(LoaderConfig(path=a))
    assert len(one.split("train")) == 3
    both = open_ready(LoaderConfig(mixture=(Part(path=a), Part(path=b))))
    assert capsys.readouterr().err.count("packing it once") == 2
    assert len(both.split("train")) == 5
    assert both.tokenizer().fingerprint == one.tokenizer().fingerprint
    with pytest.raises(DataError, match="which is not there"):
        open_ready(LoaderConfig(mixture=(Part(path=a), Part(path=str(tmp_path / "c")))))
