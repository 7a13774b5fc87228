import threading

import pytest

from diptych.core.errors import DataError, ShardError
from diptych.core.image_format import ImageFormat
from diptych.data.image_reader import ImageReader
from tests.evals import fakes

FORMAT = ImageFormat(resolution=fakes.SIDE)


def test_reading_keeps_order_and_names_what_is_broken():
    split = fakes.pairs(11)
    split.images[3] = split.images[7] = b"\x89PNG\r\n\x1a\nbroken"
    reader = ImageReader(split, FORMAT, batch_size=4)
    batches = list(reader.batches(range(11)))
    assert [b.places for b in batches] == [[0, 1, 2], [4, 5, 6], [8, 9, 10]]
    assert [int(x) for b in batches for x in b.images[:, 1, 0, 0]] == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    assert sorted(reader.broken) == [3, 7]
    assert batches[0].hashes[0] != batches[0].hashes[1]


def test_stopping_early_leaves_nothing_hanging():
    for batch in ImageReader(fakes.pairs(50), FORMAT, batch_size=4).batches(range(50)):
        assert batch.places == [0, 1, 2, 3]
        break


def test_bytes_are_read_in_the_caller_s_thread(monkeypatch):
    split, read_in = fakes.pairs(9), set()
    plain = split.image_bytes

    def image_bytes(i: int) -> bytes:
        read_in.add(threading.current_thread())
        if i == 4:
            raise DataError("a record must hold an image; it holds none.")
        return plain(i)

    monkeypatch.setattr(split, "image_bytes", image_bytes)
    reader = ImageReader(split, FORMAT, batch_size=4)
    assert [p for b in reader.batches(range(9)) for p in b.places] == [0, 1, 2, 3, 5, 6, 7, 8]
    assert read_in == {threading.current_thread()}, "a split may close the map of a shard that another thread reads"
    assert "holds none" in reader.broken[4]


def test_a_lost_shard_is_not_passed_over(monkeypatch):
    split = fakes.pairs(3)

    def image_bytes(i: int) -> bytes:
        raise ShardError("00000.tar must be a tar that can be read")

    monkeypatch.setattr(split, "image_bytes", image_bytes)
    with pytest.raises(ShardError):
        list(ImageReader(split, FORMAT, batch_size=2).batches(range(3)))
