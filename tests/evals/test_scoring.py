import torch

from diptych.evals.ranking import Matches
from diptych.evals.scoring import EmbeddedItems, ImageReader, ScoredItems, choose_places, describe_broken, thumbnail
from tests.evals import fakes


def test_reading_keeps_order_and_names_what_is_broken():
    split = fakes.pairs(11)
    split.images[3] = split.images[7] = b"\x89PNG\r\n\x1a\nbroken"
    reader = ImageReader(split, fakes.model(), batch_size=4)
    batches = list(reader.batches(range(11)))
    assert [b.places for b in batches] == [[0, 1, 2], [4, 5, 6], [8, 9, 10]]
    assert [int(x) for b in batches for x in b.images[:, 1, 0, 0]] == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    said = describe_broken(reader, most=1)
    assert said["count"] == 2
    assert list(said["first"]) == [split.uid(3)]


def test_stopping_early_leaves_nothing_hanging():
    for batch in ImageReader(fakes.pairs(50), fakes.model(), batch_size=4).batches(range(50)):
        assert batch.places == [0, 1, 2, 3]
        break


def test_blocks_equal_the_whole():
    split, model = fakes.pairs(70), fakes.model(fakes.Scores, perfect=False)
    texts = [f"thing {i} view 0" for i in range(70)]
    twin = fakes.model(fakes.Embeds, perfect=False)
    dense = EmbeddedItems(twin.embed_image(split.images), twin.embed_text(texts))
    scored = ScoredItems(model, ImageReader(split, model, 32), list(range(70)), texts)
    matches = Matches.of(list(range(70)), [[t] for t in texts])
    torch.testing.assert_close(scored.rows(30, 65), dense.rows(30, 65))
    torch.testing.assert_close(scored.pairs(matches), dense.pairs(matches))
    torch.testing.assert_close(scored.columns([1, 69]), dense.columns([1, 69]))


def test_places_and_thumbnails():
    assert choose_places(fakes.pairs(5), 3) == [0, 1, 2]
    assert choose_places(fakes.pairs(5), 0) == choose_places(fakes.pairs(5), 9) == [0, 1, 2, 3, 4]
    assert thumbnail(fakes.pairs(2), 1).startswith("/9j/")  # the first bytes of a JPEG
