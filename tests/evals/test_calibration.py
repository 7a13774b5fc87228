import numpy as np
import pytest
import torch

from diptych.core.errors import EvalError
from diptych.evals.calibration import CalibrationConfig
from tests.evals import fakes
from tests.evals.contract import Case
from tests.evals.fake_writer import writer


class Honest(fakes.Embeds):
    """Scores (0.4 times normal numbers, by image and class) under which a picture's class is drawn at scale 5."""

    scale = 5.0

    def embed_image(self, images):
        red, green, _ = images[:, :, 0, 0].long().unbind(1)
        return torch.stack([_row(n) for n in (red * 256 + green).tolist()])

    def embed_text(self, tokens, lengths):
        return torch.eye(33)[tokens[:, 0]]


def _row(number):
    """A unit vector whose first six numbers are scores."""
    rng = np.random.default_rng(number)
    scores = np.clip(rng.normal(size=6) * 0.3, -0.38, 0.38)
    row = np.zeros(33, np.float32)
    row[:6], row[32] = scores, np.sqrt(1 - (scores**2).sum())
    return torch.from_numpy(row)


def _honest(n, learned):
    """A model whose scores deserve the scale 5 and that has learned `learned`, and a split of its pictures."""
    split = fakes.labelled(n, 6)
    for i, meta in enumerate(split._meta):
        p = torch.softmax(5 * _row(i)[:6].double(), 0).numpy()
        label = int((p.cumsum() > np.random.default_rng(10**6 + i).random()).argmax())
        meta["label"], meta["class_index"] = f"kind_{label}", label
        split.images[i] = fakes.picture(i, label)
    model = fakes.model(Honest)
    with torch.no_grad():
        model.model.log_logit_scale.fill_(float(np.log(learned)))
    return model, split


def _run(model, split, artifacts=False, **settings):
    return CalibrationConfig(**{"templates": "plain", **settings}).build().run(model, split, artifacts)


@pytest.mark.parametrize("learned,said", [(20.0, "overconfident"), (1.0, "underconfident"), (5.0, "not told from")])
def test_a_planted_miscalibration_is_found_and_mended_and_none_is_not_found(learned, said):
    result = _run(*_honest(1600, learned), artifacts=True)
    found = result.metrics
    assert said in result.figures[0].rows[0][-1]
    assert "not told from" in result.figures[0].rows[1][-1]
    assert result.settings["fitted_scale"] == pytest.approx(5, rel=0.25)
    if learned == 5:
        assert found["nll_gain"].low < 0.005
        assert found["overconfidence"].low < 0 < found["overconfidence"].high
    else:
        for metric in ("ece", "nll", "brier"):
            assert found[f"{metric}_gain"].low > 0
            value = found[metric].value - found[f"{metric}_fitted"].value
            assert found[f"{metric}_gain"].value == pytest.approx(value)
        assert (found["overconfidence"].low > 0) == (learned > 5)


def test_half_is_fitted_on_and_half_judged_and_equal_images_stay_together():
    model, split = _honest(200, 5.0)
    split.images = [split.images[i // 2 * 2] for i in range(200)]
    result = _run(model, split, True)
    assert result.settings["images"] == result.settings["fit_images"] == 100
    assert result.metrics["nll"].n == 50
    clusters = result.items["images"].clusters.tolist()
    assert all(clusters.count(c) == 2 for c in set(clusters))


def test_brier_and_nll_are_torchmetrics_and_scikit_learns():
    from sklearn.metrics import log_loss

    model, split = _honest(300, 8.0)
    result = _run(model, split, True)
    uids = set(result.items["images"].keys)
    kept = [i for i in range(300) if split.uid(i) in uids]
    p = torch.softmax(8 * torch.stack([_row(i)[:6] for i in kept]).double(), 1).numpy()
    truth = np.array([split.meta(i)["class_index"] for i in kept])
    assert result.metrics["nll"].value == pytest.approx(log_loss(truth, p, labels=range(6)), abs=1e-6)
    assert result.metrics["brier"].value == pytest.approx(((p - np.eye(6)[truth]) ** 2).sum(1).mean(), abs=1e-6)


def test_errors_say_what_to_do():
    model, split = _honest(3, 5.0)
    with pytest.raises(EvalError, match="at least 4 different images"):
        _run(model, split)
    with pytest.raises(EvalError, match="other images than are judged"):
        _run(model, split, fit_split="val")
    del model.model.log_logit_scale
    with pytest.raises(EvalError, match="a scale that makes them probabilities"):
        _run(model, split)
    assert "no probabilities" in CalibrationConfig().unsuited(model, split)
    assert "in their meta" in CalibrationConfig().unsuited(fakes.model(), fakes.pairs(4))


def contract_cases():
    def maker(kind):
        def case(perfect, n):
            n = min(n, 200) if kind == "writes" else n
            split = fakes.labelled(n, 10)
            model = writer(split, perfect) if kind == "writes" else fakes.model(kind, perfect, by_label=perfect)
            return Case(model, split, {"templates": "plain"}, n // 2)

        return case

    return {getattr(kind, "__name__", kind): maker(kind) for kind in (fakes.Embeds, fakes.Scores, "writes")}
