import pytest
import torch

from diptych.core.errors import EvalError
from diptych.core.image_format import ImageFormat
from diptych.data.image_reader import ImageReader
from diptych.evals import scoring
from diptych.evals.candidates import CandidateScores
from diptych.evals.ranking import Matches
from diptych.evals.retrieval import RetrievalConfig
from diptych.evals.scoring import (
    EmbeddedItems,
    ScoredItems,
    Scoring,
    SomeTexts,
    blank_images,
    choose_places,
    choose_scoring,
    dataset_folder,
    describe_broken,
    distinct,
    paired_values,
    thumbnail,
)
from diptych.evals.statistics import PairedTest
from tests.evals import fakes
from tests.evals.fake_writer import FakeWriter, writer


@pytest.mark.parametrize("kept", [0, 1 << 24])
def test_blocks_equal_the_whole(kept, monkeypatch):
    monkeypatch.setattr(scoring, "KEPT", kept)
    split, model = fakes.pairs(70), fakes.model(fakes.Scores, perfect=False)
    texts = [f"thing {i} view 0" for i in range(70)]
    twin = fakes.model(fakes.Embeds, perfect=False)
    dense = EmbeddedItems(twin.embed_image(split.images), twin.embed_text(texts))
    reader = ImageReader(split, model.model.config.image_format, 32)
    scored = ScoredItems(model, reader, list(range(70)), texts, Scoring("score"))
    matches = Matches.of(list(range(70)), [[t] for t in texts])
    torch.testing.assert_close(scored.rows(30, 65), dense.rows(30, 65))
    torch.testing.assert_close(scored.pairs(matches), dense.pairs(matches))
    torch.testing.assert_close(scored.columns([1, 69]), dense.columns([1, 69]))


@pytest.mark.parametrize("kept", [0, 1 << 24])
@pytest.mark.parametrize("removed,per_token", [(False, False), (True, False), (True, True)])
def test_likelihoods_are_those_of_each_pair_alone(removed, per_token, kept, monkeypatch):
    monkeypatch.setattr(scoring, "KEPT", kept)
    monkeypatch.setattr(scoring, "TEXTS_SIDE", 3)
    split = fakes.told(9, 3)
    model = writer(split)
    texts = [split.captions(i)[i % 2] for i in range(9)]
    how = Scoring("log_likelihood", removed, per_token)
    items = ScoredItems(model, ImageReader(split, model.model.config.image_format, 4), range(9), texts, how)
    rows = items.rows(0, 9)
    for i in range(9):
        images = model.pixels(split.images[i])[None]
        for t, text in enumerate(texts):
            tokens, lengths = model.tokenizer.batch([text])
            expected = model.model.log_likelihood(images, tokens, lengths)[0, 0]
            if removed:
                expected = expected - model.model.text_prior(tokens, lengths)[0]
            if per_token:
                expected = expected / (lengths[0] - 1)
            torch.testing.assert_close(rows[i, t], expected, msg=f"{i} {t}")
    torch.testing.assert_close(items.columns([8, 2]), rows[:, [8, 2]])
    torch.testing.assert_close(SomeTexts(items, [1, 1, 0]).rows(2, 4), rows[2:4, [1, 1, 0]])


def test_an_image_is_seen_once_for_all_texts():
    split = fakes.told(9, 3)
    model = writer(split)
    texts = [c for i in range(9) for c in split.captions(i)]
    reader = ImageReader(split, model.model.config.image_format, 4)
    items = ScoredItems(model, reader, range(9), texts, Scoring("log_likelihood"))
    items.rows(0, 4), items.rows(4, 9), items.columns([1])
    assert model.model.images_seen == 9


def test_pairs_are_scored_as_the_model_can_and_the_settings_say():
    split = fakes.told(4, 2)

    def chosen(model, **settings):
        return choose_scoring(model, RetrievalConfig(**settings), "retrieval")

    assert chosen(fakes.model()).by == "embeddings"
    assert chosen(fakes.model(fakes.Scores)) == Scoring("score")
    assert chosen(writer(split)) == Scoring("log_likelihood")
    matches = writer(split)
    matches.model.__class__ = type("Matches", (FakeWriter,), {"score": lambda self, *_: None})
    assert chosen(matches) == Scoring("score"), "a model's own score goes before its likelihood"
    assert chosen(writer(split), scored_by="score") == Scoring("score")
    assert chosen(writer(split), text_prior="removed", per_token=True) == Scoring("log_likelihood", True, True)
    with pytest.raises(
        EvalError, match=r"text_prior=removed must be asked of a model that knows log p.*got Embeds with"
    ):
        chosen(fakes.model(), text_prior="removed")
    with pytest.raises(EvalError, match="per_token=true must be asked"):
        chosen(fakes.model(fakes.Scores), per_token=True)
    with pytest.raises(
        EvalError, match="text_prior=removed must go with scored_by=log_likelihood; got scored_by=score"
    ):
        chosen(writer(split), text_prior="removed", scored_by="score")
    with pytest.raises(EvalError, match="retrieval must be given a model with embed_image, embed_text; got FakeWriter"):
        chosen(writer(split), scored_by="embeddings")
    with pytest.raises(EvalError, match="retrieval must be given a model with score"):
        chosen(fakes.model(fakes.Mute))


class _Paints(fakes.Scores):
    """Its score is worth more for some images in any case, which is what it says that they alone are worth."""

    seen = 0

    def image_prior(self, images):
        self.seen += len(images)
        return 5.0 * images[:, 1, 0, 0].float()

    def score(self, images, tokens, lengths):
        return super().score(images, tokens, lengths) + 5.0 * images[:, 1, 0, 0].float()[:, None]


@pytest.mark.parametrize("kept", [0, 1 << 24])
def test_what_images_alone_are_worth_can_be_taken_off(kept, monkeypatch):
    monkeypatch.setattr(scoring, "KEPT", kept)
    split, model = fakes.pairs(40), fakes.model(_Paints)
    texts = [f"thing {i} view 0" for i in range(40)]
    reader, how = ImageReader(split, model.model.config.image_format, 16), Scoring("score", image_prior_removed=True)
    items = ScoredItems(model, reader, range(40), texts, how)
    twin = fakes.model(fakes.Scores)
    plain = ScoredItems(twin, reader, range(40), texts, Scoring("score")).rows(0, 40)
    torch.testing.assert_close(items.rows(0, 40), plain, atol=1e-4, rtol=0)  # numbers of some hundreds were taken off
    torch.testing.assert_close(items.columns([3, 1]), plain[:, [3, 1]], atol=1e-4, rtol=0)
    assert model.model.seen == 40, "each image's prior is computed once"
    each = CandidateScores(model, reader, range(40), texts, how).of_each([[i, 0] for i in range(40)])
    torch.testing.assert_close(torch.stack(each)[:, 1], plain[:, 0], atol=1e-4, rtol=0)
    found = {p: RetrievalConfig(image_prior=p).build().run(model, split, False).metrics for p in ("kept", "removed")}
    assert found["kept"]["t2i_recall_at_1"].value < 0.1, "every text finds the one image that is likely in any case"
    assert found["removed"]["t2i_recall_at_1"].value == 1
    assert found["kept"]["i2t_recall_at_1"].value == found["removed"]["i2t_recall_at_1"].value == 1


def test_an_image_prior_is_asked_of_those_that_have_one_and_with_their_score():
    def chosen(model, **settings):
        return choose_scoring(model, RetrievalConfig(image_prior="removed", **settings), "retrieval")

    assert chosen(fakes.model(_Paints)) == Scoring("score", image_prior_removed=True)
    with pytest.raises(EvalError, match=r"image_prior=removed must be asked of a model that knows log p\(image\)"):
        chosen(fakes.model(fakes.Scores))
    for more in ({"text_prior": "removed"}, {"per_token": True}, {"scored_by": "log_likelihood"}):
        with pytest.raises(EvalError, match=r"image_prior=removed must go with scored_by=score alone; got it with"):
            chosen(fakes.model(_Paints), **more)


def test_small_things():
    blank = blank_images(ImageFormat(resolution=4), 2)
    assert blank.shape == (2, 3, 4, 4)
    assert blank[0, :, 0, 0].tolist() == [123, 117, 104]
    assert distinct([b"a", b"b", b"a"]).tolist() == [0, 1, 0]
    assert dataset_folder("", fakes.pairs(1)) is None
    assert str(dataset_folder("here", fakes.pairs(1))) == "here"
    test = PairedTest(0.5, 0.1, 0.9, 0.01, 9, 3)
    assert paired_values(test)["verdict"] == "better"
    assert paired_values(test, "worse")["verdict"] == "worse"


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
