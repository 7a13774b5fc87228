import numpy as np
import pytest
import torch

from diptych.core.errors import EvalError
from diptych.data.image_reader import ImageReader
from diptych.evals import choices
from diptych.evals.choices import ChangedReader, ChoiceConfig, Chooser, HeldReader, choosable, kind_of, read_choices
from diptych.evals.retrieval import RetrievalConfig
from diptych.evals.scoring import choose_scoring, read_gallery
from diptych.evals.zero_shot import ZeroShotConfig
from tests.evals import fakes


class _Config(ChoiceConfig):
    def build(self):
        return type("Nothing", (), {"needs": ("score",)})()


def _chosen(model, split, reader=None, **settings):
    config = _Config(**settings)
    scoring = choose_scoring(model, config, "it")
    places = choosable(kind_of(config, split, range(len(split))), split, range(len(split)))
    reader = reader or ImageReader(split, model.model.config.image_format, 16)
    gallery = read_gallery(model, reader, places, "it", scoring.by == "embeddings")
    found = read_choices(config, kind_of(config, split, places), split, gallery, scoring.by == "embeddings")
    hits = found.hits(Chooser(model, found, scoring).choose(reader, gallery.places, gallery.vectors))
    return found, hits


@pytest.mark.parametrize("kind", [fakes.Embeds, fakes.Scores])
def test_labels_are_the_zero_shot_eval(kind):
    model, split = fakes.model(kind, perfect=False), fakes.labelled(60, 6)
    found, hits = _chosen(model, split, templates="simple")
    result = ZeroShotConfig(templates="simple").build().run(model, split, False)
    assert hits.mean() == result.metrics["acc_at_1"].value
    assert (found.kind, found.chance, len(found.templates)) == ("labels", 1 / 6, 7)
    assert _chosen(model, split)[0].source == ("clip" if kind is fakes.Embeds else "the bare name")


@pytest.mark.parametrize("kind", [fakes.Embeds, fakes.Scores])
def test_captions_are_recall_at_1(kind):
    split = fakes.pairs(50, 2)
    split.images[7] = split.images[6]
    split._captions[9] = split._captions[8]
    split._captions[20] = ()
    for perfect in (True, False):
        model = fakes.model(kind, perfect)
        found, hits = _chosen(model, split)
        result = RetrievalConfig().build().run(model, split, False)
        assert hits.mean() == pytest.approx(result.metrics["i2t_recall_at_1"].value)
    assert (found.kind, len(found.names), len(hits)) == ("captions", 48, 49)
    assert found.right[6] == found.right[7] == {6, 7}  # equal pictures
    assert found.mask([8]).sum() == 1
    assert found.chance == pytest.approx((47 + 2 * 2) / 49 / 48)


def test_what_is_chosen_by():
    both = fakes.labelled(10, 2)
    assert kind_of(_Config(), both, range(10)) == "labels"
    assert kind_of(_Config(choices="captions"), both, range(10)) == "captions"
    assert kind_of(_Config(label_field="colour"), both, range(10)) == "captions"
    assert _Config().unsuited(fakes.model(), both) == ""
    nothing = fakes.FakeSplit(both.images, [()] * 10)
    assert _Config().unsuited(fakes.model(), nothing) == "its records have no labels and no captions"
    assert _Config(choices="labels").unsuited(fakes.model(), fakes.pairs(5)) == "its records have no labels"
    assert _Config().unsuited(fakes.model(fakes.Mute), both) == "the model scores no pairs"


def test_a_held_reader_decodes_once(monkeypatch):
    split, seen = fakes.labelled(20, 4), []
    split.images[3] = b"broken"
    monkeypatch.setattr(split, "image_bytes", lambda i: seen.append(i) or split.images[i], raising=False)
    reader = HeldReader(split, fakes.model().model.config.image_format, 8)
    plain = list(ImageReader(split, reader.format, 8).batches(range(20)))
    seen.clear()
    for _ in range(3):
        found = list(reader.batches(range(20)))
        assert [p for b in found for p in b.places] == [p for b in plain for p in b.places]
        assert torch.equal(torch.cat([b.images for b in found]), torch.cat([b.images for b in plain]))
    assert seen == list(range(20))
    assert [b.places for b in reader.batches([5, 1])] == [[5, 1]]
    assert 3 in reader.broken
    monkeypatch.setattr(choices, "HELD", 0)
    reader = HeldReader(split, reader.format, 8)
    assert len(list(reader.batches(range(20)))) == len(list(reader.batches(range(20)))) == 3
    assert len(seen) == 60


def test_a_changed_reader_changes_what_is_scored():
    model, split = fakes.model(fakes.Scores), fakes.pairs(12)
    reader = HeldReader(split, model.model.config.image_format, 5)
    assert _chosen(model, split, reader)[1].all()
    turned = ChangedReader(reader, lambda images, places: images.flip(0))
    hits = _chosen(model, split, turned)[1]
    assert np.flatnonzero(hits).tolist() == [2, 7]  # the middle ones of batches of odd size


def test_errors_say_what_to_do():
    split = fakes.pairs(6)
    split._captions[2] = ()
    model = fakes.model()
    gallery = read_gallery(model, ImageReader(split, model.model.config.image_format, 8), range(6), "it", True)
    with pytest.raises(EvalError, match=r"every image must have a caption .*got 1 of 6 without"):
        read_choices(_Config(), "captions", split, gallery, True)
    same = fakes.FakeSplit(split.images, [("thing 1",)] * 6)
    with pytest.raises(EvalError, match="at least 2 different captions; got 1 of 6"):
        read_choices(_Config(), "captions", same, gallery, True)
