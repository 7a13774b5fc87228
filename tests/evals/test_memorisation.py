import numpy as np
import pytest
import torch

from diptych.core.errors import DataError, EvalError
from diptych.core.image_format import ImageFormat
from diptych.data.decode import decode_image, resize_image
from diptych.evals.memorisation import MemorisationConfig, saved_anew
from tests.evals import fakes, leaky_data
from tests.evals.contract import Case


def _run(split, model=None, artifacts=False, **settings):
    return MemorisationConfig(**settings).build().run(model or fakes.model(), split, artifacts)


def test_a_planted_leak_is_found_and_its_absence_is_not():
    leaky = _run(leaky_data.leaky(20, 10).split("val"), vectors=False).metrics
    assert leaky["near_copy_share"].value == pytest.approx(0.5)
    assert leaky["near_copy_share"].low > 0.3
    assert leaky["exact_copy_share"].value == pytest.approx(10 / 60)
    assert leaky["seen_caption_share"].value == pytest.approx(20 / 60)  # "Thing  3!" is "thing 3"
    assert (leaky["accuracy_new"].n, leaky["accuracy_copied"].n) == (30, 30)
    clean = _run(leaky_data.leaky(0, 0).split("val"), vectors=False).metrics
    assert (clean["near_copy_share"].value, clean["seen_caption_share"].value) == (0, 0)
    assert clean["near_copy_share"].high < 0.07
    assert "accuracy_copied" not in clean
    assert "copy_advantage" not in clean


def test_what_copies_do_to_the_score_is_found(monkeypatch):
    """A model that gets its answers right on copies only, and one that does so on half of all."""
    from diptych.evals import memorisation

    real = memorisation.item_hits

    def hits(rule):
        def changed(model, split, config, who):
            found = real(model, split, config, who)
            captions = [int("".join(filter(str.isdigit, split.captions(p)[0]))) for p in found.gallery.places]
            return found._replace(right=np.array([rule(c) for c in captions]))

        return changed

    split = leaky_data.leaky(20, 10).split("val")
    monkeypatch.setattr(memorisation, "item_hits", hits(lambda c: c < 20 or c >= 1000))
    e = _run(split, vectors=False).metrics["copy_advantage"]
    assert (e.value, e.chance, e.n) == (1, 0, 30)
    assert e.above_chance
    monkeypatch.setattr(memorisation, "item_hits", hits(lambda c: c % 2 == 0))
    e = _run(split, vectors=False).metrics["copy_advantage"]
    assert e.low < 0 < e.high


def test_copies_by_the_models_own_vectors():
    model = fakes.model(leaky_data.Looks)
    result = _run(leaky_data.leaky(20, 10).split("val"), model, True)
    assert result.metrics["vector_copy_share"].low > 0.25
    assert result.settings["vector_copy_cosine"] > 0.9
    assert result.metrics["vector_copy_share"].chance <= 0.05
    clean = _run(leaky_data.leaky(0, 0).split("val"), model)
    assert clean.metrics["vector_copy_share"].low <= 0.05
    titles = [f.title for f in result.figures]
    assert titles[:4] == [
        "Found in the training data",
        "Accuracy with and without",
        "Cosine to the nearest training image",
        "Near copies",
    ]
    sheet = result.figures[3].pictures
    assert len(sheet) == 24
    for held, train in zip(sheet[::2], sheet[1::2], strict=True):
        assert held.caption.startswith("held out: ")
        number = int("".join(filter(str.isdigit, held.caption))) % 1000
        assert train.caption == f"in training: thing {number}"


def test_a_picture_saved_anew_is_nearly_the_same():
    split, format = leaky_data.leaky(0, 0).split("val"), ImageFormat(resolution=32)
    images = torch.stack([resize_image(decode_image(split.image_bytes(i)), format) for i in (3, 5)])
    again = saved_anew(split, format)(images, [3, 5])
    assert again.shape == images.shape
    assert 0 < (again.float() - images.float()).abs().mean() < 5


def test_other_training_data_can_be_named():
    split = leaky_data.leaky(0, 0).split("val")
    other = leaky_data.leaky(20, 10)
    e = _run(split, vectors=False, reference=str(other.path), reference_split="val").metrics
    assert e["near_copy_share"].value == pytest.approx(0.5)  # scenes 60 to 119, of which 60 to 89 stand there
    assert e["near_copy_share"].n == 60


def test_errors_and_what_does_not_suit():
    data = leaky_data.leaky(0, 0)
    with pytest.raises(EvalError, match=r"held-out split; got train, the training split itself.*--split"):
        _run(data.split("train"))
    with pytest.raises(EvalError, match=r"without a folder.*reference=DIR"):
        _run(fakes.pairs(10))
    with pytest.raises(DataError, match="must be one of train, val; got 'dev'"):
        _run(data.split("val"), reference_split="dev")
    unsuited = MemorisationConfig().unsuited
    assert unsuited(fakes.model(), data.split("val")) == ""
    assert unsuited(fakes.model(), data.split("train")) == "it is the training split itself"
    assert "no split train beside it" in unsuited(fakes.model(), fakes.pairs(5))
    assert "score" in unsuited(fakes.model(fakes.Mute), data.split("val"))


def contract_cases():
    def maker(kind):
        def case(perfect, n):
            return Case(fakes.model(kind, perfect), leaky_data.clean(n).split("val"), {}, n)

        return case

    return {kind.__name__: maker(kind) for kind in (fakes.Embeds, fakes.Scores)}
