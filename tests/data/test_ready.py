import base64

import pytest

from diptych.core.errors import DataError
from diptych.data.dataset import Dataset
from diptych.data.ready import packed
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
    assert capsys.readouterr().err == ""
    assert packed(first) == first


def test_what_is_not_there_is_named():
    with pytest.raises(DataError, match="diptych corpus get emoji"):
        packed("no/such/place")
