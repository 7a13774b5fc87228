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
