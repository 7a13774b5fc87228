"""Bytes that can be had again."""

import pickle
from pathlib import Path

import pytest
import torch

from diptych.core.errors import DataError
from diptych.data.decode import decode_image
from diptych.data.located import Located, again, cut_out, part_of_file, read_part, whole_file
from tests.data.pictures import png


def test_a_file_and_a_part_of_one(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    whole, part = whole_file(path), part_of_file(b"345", path, 3)
    assert (whole, part) == (b"0123456789", b"345")
    assert isinstance(whole, bytes)
    for data in (whole, part, pickle.loads(pickle.dumps(whole)), pickle.loads(pickle.dumps(part))):
        how = again(data)
        assert how is not None
        assert pickle.loads(pickle.dumps(how))() == how() == data
    assert again(b"plain") is None
    assert again(Located(b"x")) is None


def test_a_file_that_changed_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"0123")
    with pytest.raises(DataError, match="was cut off"):
        read_part(path, 2, 9)
    path.unlink()
    with pytest.raises(DataError, match="must be there as long as it is evaluated on; got No such file"):
        read_part(path)


def test_a_part_of_an_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    data = whole_file(tmp_path / "a.png")
    cut = cut_out(data, (-3, 2, 10, 99))
    torch.testing.assert_close(decode_image(cut), decode_image(data)[:, 2:, :10])
    how = again(cut)
    assert how is not None
    assert pickle.loads(pickle.dumps(how))() == cut
    assert again(cut_out(png(), (0, 0, 1, 1))) is None
    for box in ((5, 5, 5, 9), (-9, 0, -1, 4), (40, 0, 50, 4)):
        with pytest.raises(DataError, match="a box must hold some of its image of 32 x 24 pixels"):
            cut_out(data, box)
