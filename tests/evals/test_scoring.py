import torch

from diptych.data.image_reader import ImageReader
from diptych.evals.ranking import Matches
from diptych.evals.scoring import EmbeddedItems, ScoredItems, choose_places, describe_broken, thumbnail
from tests.evals import fakes


def test_blocks_equal_the_whole():
    split, model = fakes.pairs(70), fakes.model(fakes.Scores, perfect=False)
    texts = [f"thing {i} view 0" for i in range(70)]
    twin = fakes.model(fakes.Embeds, perfect=False)
    dense = EmbeddedItems(twin.embed_image(split.images), twin.embed_text(texts))
    scored = ScoredItems(model, ImageReader(split, model.model.config.image_format, 32), list(range(70)), texts)
    matches = Matches.of(list(range(70)), [[t] for t in texts])
    torch.testing.assert_close(scored.rows(30, 65), dense.rows(30, 65))
    torch.testing.assert_close(scored.pairs(matches), dense.pairs(matches))
    torch.testing.assert_close(scored.columns([1, 69]), dense.columns([1, 69]))


def test_what_is_broken_is_named():
    split = fakes.pairs(5)
    split.images[3] = b"broken"
    reader = ImageReader(split, fakes.model().model.config.image_format, 2)
    assert sum(len(b.places) for b in reader.batches(range(5))) == 4
    assert describe_broken(reader)["count"] == 1
    assert list(describe_broken(reader)["first"]) == [split.uid(3)]


def test_places_and_thumbnails():
    some = choose_places(fakes.pairs(200), 50)
    assert some == choose_places(fakes.pairs(200), 50) == sorted(set(some))
    assert len(some) == 50
    assert 15 < sum(p < 100 for p in some) < 35, "a sorted split must not give its first class alone"
    assert choose_places(fakes.pairs(5), 0) == choose_places(fakes.pairs(5), 9) == [0, 1, 2, 3, 4]
    assert thumbnail(fakes.pairs(2), 1).startswith("/9j/")  # the first bytes of a JPEG
