import numpy as np
import pytest

from diptych.core.config import from_json, to_json
from diptych.core.errors import ConfigError
from diptych.data.corruptions import CORRUPTIONS
from diptych.evals import find
from diptych.evals.robustness import RobustnessConfig
from diptych.evals.statistics import paired_difference
from diptych.evals.zero_shot import ZeroShotConfig
from diptych.models.vector_memory import VectorMemory
from tests.evals import colour_models, fakes
from tests.evals.contract import Case
from tests.evals.fake_writer import writer

HARMLESS = ("contrast", "pixelate", "gaussian_blur")
"""What leaves a picture of one colour as it is."""


def _run(model, split, artifacts=False, **settings):
    return RobustnessConfig(**{"templates": "plain", **settings}).build().run(model, split, artifacts)


def test_noise_in_one_pixel_is_found_here_and_by_no_eval_of_clean_images():
    split = colour_models.blues(120)
    sturdy, fragile = colour_models.model("mean"), colour_models.model("corner")
    clean = [ZeroShotConfig(templates="plain").build().run(m, split).metrics for m in (sturdy, fragile)]
    assert clean[0] == clean[1]  # accuracy and calibration alike
    settings = {"corruptions": ("gaussian_noise", "impulse_noise"), "severities": (1, 2, 3)}
    found = [_run(m, split, True, **settings) for m in (sturdy, fragile)]
    assert found[0].metrics["clean"].value == found[1].metrics["clean"].value == 1
    assert found[0].metrics["drop"].value < 0.02
    assert found[1].metrics["drop"].low > 0.05
    assert found[1].metrics["gaussian_noise"].high < found[0].metrics["gaussian_noise"].low
    assert found[1].metrics["severity_3"].value < found[1].metrics["severity_1"].value
    assert found[1].metrics["relative_drop"].value == pytest.approx(found[1].metrics["drop"].value)
    a, b = (np.array(f.items["images"].values["corrupted"]) for f in found)
    assert paired_difference(b, a).verdict() == "worse"


def test_numbers_by_hand():
    split = colour_models.blues(60)
    result = _run(colour_models.model("corner"), split, True, corruptions=("impulse_noise", "contrast"))
    values = result.items["images"].values
    assert values["contrast"].tolist() == [1.0] * 60
    hits = np.array(values["impulse_noise"])
    assert result.metrics["corrupted"].value == pytest.approx((hits.mean() + 1) / 2)
    assert result.metrics["drop"].value == pytest.approx(1 - (hits.mean() + 1) / 2)
    errors = result.artifacts["errors"]
    assert errors[0] == {"corruption": "clean", "severity": 0, "error": 0.0}
    assert np.mean([e["error"] for e in errors if e["corruption"] == "impulse_noise"]) == pytest.approx(1 - hits.mean())
    assert result.settings["resolution"] == colour_models.SIDE


def test_mce_is_relative_to_another_models_errors(tmp_path):
    split = colour_models.blues(80)
    settings = {"corruptions": ("gaussian_noise", "impulse_noise"), "severities": (2, 4)}
    fragile = _run(colour_models.model("corner"), split, True, **settings)
    path = find.save(fragile, tmp_path)
    again = _run(colour_models.model("corner"), split, True, **settings, reference=str(path))
    assert again.metrics["mce"].value == pytest.approx(1)
    assert again.metrics["relative_mce"].value == pytest.approx(1)
    rows = {
        ("gaussian_noise", 2): 0.5,
        ("gaussian_noise", 4): 0.7,
        ("impulse_noise", 2): 0.2,
        ("impulse_noise", 4): 0.4,
    }
    table = tmp_path / "reference.csv"
    said = ["corruption,severity,error", "clean,0,0.1", *(f"{k},{s},{e}" for (k, s), e in rows.items())]
    table.write_text("\n".join(said))
    found = _run(colour_models.model("corner"), split, True, **settings, reference=str(table))
    mine = {(e["corruption"], e["severity"]): e["error"] for e in fragile.artifacts["errors"]}
    kinds = settings["corruptions"]
    ratios = [sum(mine[k, s] for s in (2, 4)) / sum(rows[k, s] for s in (2, 4)) for k in kinds]
    assert found.metrics["mce"].value == pytest.approx(np.mean(ratios))
    ratios = [sum(mine[k, s] for s in (2, 4)) / sum(rows[k, s] - 0.1 for s in (2, 4)) for k in kinds]
    assert found.metrics["relative_mce"].value == pytest.approx(np.mean(ratios))  # its own clean error is 0
    assert not found.metrics["mce"].higher_is_better


@pytest.mark.parametrize("kind", [fakes.Embeds, fakes.Scores])
def test_all_ways_of_scoring_agree_and_vectors_are_remembered(kind):
    split = fakes.labelled(30, 5)
    model = fakes.model(kind, by_label=True)
    model.memory = VectorMemory()
    settings = {"corruptions": ("impulse_noise", "contrast"), "severities": (1, 5)}
    result = _run(model, split, True, **settings)
    assert result.metrics["contrast"].value == 1
    assert result.metrics["impulse_noise"].value < 1
    computed = model.memory.computed["image"]
    assert computed == (30 * 5 if kind is fakes.Embeds else 0)
    assert _run(model, split, True, **settings) == result
    assert model.memory.computed["image"] == computed


def test_copies_of_an_image_get_the_same_noise():
    split = colour_models.blues(40)
    split.images = [split.images[i % 8] for i in range(40)]
    result = _run(colour_models.model("corner"), split, True, corruptions=("gaussian_noise",))
    values = np.array(result.items["images"].values["gaussian_noise"]).reshape(5, 8)
    assert (values == values[0]).all()
    assert result.metrics["corrupted"].n == 8


def test_captions_and_the_bound_on_scored_pairs():
    result = _run(colour_models.model("corner"), colour_models.blues(40, captions=True), corruptions=("jpeg",))
    assert (result.settings["choices"], result.settings["texts"]) == ("captions", 4)
    scored = _run(fakes.model(fakes.Scores), fakes.pairs(20), corruptions=("contrast",), most_scored=6)
    assert scored.metrics["corrupted"].n == 6
    assert scored.metrics["corrupted"].chance == pytest.approx(1 / 6)


def test_figures_show_curves_drops_and_examples():
    result = _run(colour_models.model("corner"), colour_models.blues(30), True)
    assert from_json(to_json(result)).figures == result.figures
    curves, left, drops, examples = result.figures
    assert set(curves.series) == set(CORRUPTIONS)
    assert all(len(s) == 6 and s[0] == 1 for s in curves.series.values())
    assert left.rows[0].name == "clean"
    assert len(drops.rows) == 45
    assert len(examples.pictures) == 27


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="corruptions must be some of gaussian_noise"):
        RobustnessConfig(corruptions=("fog",))
    with pytest.raises(ConfigError, match="severities must be some of 1 to 5"):
        RobustnessConfig(severities=(0,))


def contract_cases():
    def maker(kind):
        def case(perfect, n):
            settings = {"templates": "plain", "corruptions": HARMLESS, "severities": (1, 4), "most_scored": 0}
            if kind == "captions":
                split = colour_models.blues(n)
                return Case(colour_models.model(perfect=perfect), split, settings | {"choices": "captions"}, n)
            n = min(n, 100) if kind == "writes" else n
            split = fakes.labelled(n, 10)
            model = writer(split, perfect) if kind == "writes" else fakes.model(kind, perfect, by_label=perfect)
            return Case(model, split, settings, n)

        return case

    return {getattr(kind, "__name__", kind): maker(kind) for kind in (fakes.Embeds, fakes.Scores, "writes", "captions")}
