import numpy as np
import pytest
import torch

from diptych.core.errors import EvalError
from diptych.evals.geometry import GeometryConfig
from tests.evals import fakes
from tests.evals.contract import Case
from tests.reference import geometry as plain


def _run(model, split, artifacts=False, **settings):
    return GeometryConfig(**settings).build().run(model, split, artifacts)


def test_numbers_are_those_of_the_plain_formulas():
    split, model = fakes.pairs(60), fakes.model(perfect=False)
    metrics = _run(model, split, components=5).metrics
    x = model.embed_image([split.image_bytes(i) for i in range(60)]).double().numpy()
    y = model.embed_text([split.captions(i)[0] for i in range(60)]).double().numpy()
    assert metrics["alignment"].value == pytest.approx(((x - y) ** 2).sum(1).mean())
    others = [((x[i] - y[j]) ** 2).sum() for i in range(60) for j in range(60) if i != j]
    assert metrics["alignment"].chance == pytest.approx(np.mean(others))
    assert metrics["modality_gap"].value == pytest.approx(np.linalg.norm(x.mean(0) - y.mean(0)))
    assert metrics["image_uniformity"].value == pytest.approx(plain.uniformity(x), abs=1e-5)
    assert metrics["text_effective_rank"].value == pytest.approx(plain.effective_rank(y, 1), abs=1e-4)
    assert metrics["text_variance_share_top_5"].value == pytest.approx(plain.top_share(y, 5), abs=1e-6)
    assert metrics["image_collapse_share"].value == 0


def test_random_vectors_show_what_random_vectors_show():
    result = _run(fakes.model(perfect=False), fakes.pairs(300))
    e = result.metrics
    assert e["modality_gap"].low <= e["modality_gap"].chance <= e["modality_gap"].high
    for side in ("image", "text"):
        random = result.settings["random_vectors"][side]
        assert e[f"{side}_uniformity"].low <= random["uniformity"] <= e[f"{side}_uniformity"].high
        assert e[f"{side}_effective_rank"].value == pytest.approx(random["effective_rank"], rel=0.02)
    assert result.settings["width"] == 32


class Shifted(fakes.Embeds):
    """Images and texts lie alike, but to either side of a plane."""

    def embed_image(self, images):
        return torch.nn.functional.normalize(super().embed_image(images) + torch.eye(32)[0], dim=1)

    def embed_text(self, tokens, lengths):
        return torch.nn.functional.normalize(super().embed_text(tokens, lengths) - torch.eye(32)[0], dim=1)


def test_a_planted_gap_is_found_and_its_absence_is_not():
    planted = _run(fakes.model(Shifted, perfect=False), fakes.pairs(200)).metrics["modality_gap"]
    assert planted.low > 10 * planted.chance
    clean = _run(fakes.model(perfect=False), fakes.pairs(200)).metrics["modality_gap"]
    assert clean.low < clean.chance


class Confuses(fakes.Embeds):
    """Cannot tell an image from the next: even and odd numbers are alike."""

    def _of_images(self, images):
        return super()._of_images(images - images % 2)


def test_a_planted_collapse_is_found_and_its_absence_is_not():
    result = _run(fakes.model(Confuses, perfect=False), fakes.pairs(60), True)
    assert result.metrics["image_collapse_share"].low > 0.9
    assert result.metrics["text_collapse_share"].value == 0
    pairs = next(f for f in result.figures if f.title == "Images that are one to the model").pictures
    assert len(pairs) == 24
    numbers = [int(p.caption.split()[1]) for p in pairs]
    assert all(abs(a - b) == 1 for a, b in zip(numbers[::2], numbers[1::2], strict=True))
    clean = _run(fakes.model(perfect=False), fakes.pairs(60), True)
    assert clean.metrics["image_collapse_share"].value == 0
    assert [f.title for f in clean.figures] == [
        "Cosines of pairs and of others",
        "Variance in the first components",
        "Beside random vectors",
    ]


def test_equal_bytes_and_equal_captions_are_no_collapse():
    split = fakes.pairs(20)
    split.images[1], split._captions[2] = split.images[0], split._captions[3]
    result = _run(fakes.model(perfect=False), split, True)
    assert (result.settings["distinct_images"], result.settings["distinct_captions"]) == (19, 19)
    assert result.metrics["image_collapse_share"].value == 0
    assert result.metrics["alignment"].n == 19
    assert len(result.items["pairs"].keys) == 20


def test_a_collapsed_model_is_measured_too():
    e = _run(fakes.model(fakes.Collapsed), fakes.pairs(20), True).metrics
    assert e["image_collapse_share"].value == 1
    assert e["image_effective_rank"].value == pytest.approx(1)
    assert e["image_uniformity"].value == pytest.approx(0, abs=1e-6)


def test_errors_say_what_to_do():
    split = fakes.pairs(10)
    split._captions = [()] * 9 + [("thing 9",)]
    with pytest.raises(EvalError, match="at least 2 readable images with captions; got 1"):
        _run(fakes.model(), split)
    split = fakes.pairs(10)
    split._captions = [("thing 1",)] * 10
    with pytest.raises(EvalError, match="at least 3 distinct images and captions; got 10 and 1"):
        _run(fakes.model(), split)
    with pytest.raises(EvalError, match="must be finite"):
        _run(fakes.model(fakes.NotFinite), fakes.pairs(10))


def test_what_does_not_suit_is_said():
    assert GeometryConfig().unsuited(fakes.model(), fakes.pairs(5)) == ""
    assert "embed_image" in GeometryConfig().unsuited(fakes.model(fakes.Scores), fakes.pairs(5))
    split = fakes.pairs(5)
    split._captions = [()] * 5
    assert GeometryConfig().unsuited(fakes.model(), split) == "its records have no captions"


def contract_cases():
    def case(perfect, n):
        return Case(fakes.model(fakes.Embeds, perfect), fakes.pairs(n), {}, n)

    return {"Embeds": case}
