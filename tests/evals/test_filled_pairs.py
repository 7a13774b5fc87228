import pytest

from diptych.core.errors import EvalError
from diptych.data.image_reader import ImageReader
from diptych.evals.filled_pairs import hidden_batches, partners, read_pairs
from diptych.evals.filling_in import FillingInConfig
from tests.evals import fakes, fill_models


def _read(split, batch_size=8):
    model = fill_models.model()
    reader = ImageReader(split, model.model.config.image_format, batch_size)
    return model, reader, read_pairs(model, reader, range(len(split)), 0, "filling_in")


def test_partners_are_of_other_words_and_another_picture():
    texts = [(1,), (1,), (2,), (3,), (1,), (4,)]
    hashes = [b"a", b"b", b"c", b"a", b"e", b"f"]
    found = partners(texts, hashes, "x")
    assert found == [5, 5, 5, 1, 2, 2]
    for i, j in enumerate(found):
        assert texts[i] != texts[j]
        assert hashes[i] != hashes[j]
    with pytest.raises(EvalError, match="x must be given pairs that differ"):
        partners([(1,), (1,)], [b"a", b"b"], "x")


def test_what_is_hidden_is_the_same_in_any_batch_and_as_much_as_asked():
    split = fakes.pairs(20)
    model, reader, pairs = _read(split)
    hiding = FillingInConfig(patches=0.5, tokens=0.5).hiding
    whole = [x for b in hidden_batches(model, reader, pairs, hiding) for x in zip(b.patches, b.words, strict=True)]
    some = next(iter(hidden_batches(model, reader, pairs, hiding, [13, 4])))
    assert [p.sum().item() for p, _ in whole] == [2] * 20
    assert [w.sum().item() for _, w in whole] == [2] * 20  # of four between start and end
    for row, i in enumerate((13, 4)):
        assert some.patches[row].equal(whole[i][0])
        assert some.words[row].equal(whole[i][1])
        assert int(some.images[row, 1, 0, 0]) == i
        assert int(some.other_images[row, 1, 0, 0]) == pairs.partner[i]
        assert 1000 + pairs.partner[i] in some.other_tokens[row].tolist()
    other = FillingInConfig(patches=0.5, tokens=0.5, seed=1).hiding
    seeded = read_pairs(model, reader, range(20), 1, "filling_in")
    again = [x for b in hidden_batches(model, reader, seeded, other) for x in b.patches]
    assert any(not a.equal(b[0]) for a, b in zip(again, whole, strict=True))


def test_records_without_words_or_pixels_are_left_out():
    split = fakes.pairs(10)
    split._captions[2], split._captions[5] = (), ("",)
    split.images[7] = b"no picture"
    _, reader, pairs = _read(split)
    assert pairs.places == [0, 1, 3, 4, 6, 8, 9]
    assert pairs.too_short == 1
    assert list(reader.broken) == [7]
