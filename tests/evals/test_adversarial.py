import numpy as np
import pytest
import torch

from diptych.core.config import from_json, to_json
from diptych.core.errors import ConfigError, EvalError
from diptych.evals.adversarial import AdversarialConfig
from diptych.evals.robustness import RobustnessConfig
from diptych.evals.zero_shot import ZeroShotConfig
from diptych.models.pretrained import Pretrained
from tests.evals import colour_models, fakes
from tests.evals.colour_models import GAP, LEVELS, ReadsBlue
from tests.evals.contract import Case


class Brittle(ReadsBlue):
    """Right about clean pictures, by their blue; but the pattern of their red pixels, which are even, speaks louder
    once it is there: 32 levels in sum turn it over."""

    def encode_image(self, images):
        pixels = images.float()
        sign = torch.ones(16 * 16)
        sign[::2] = -1
        pattern = (pixels[:, 0].flatten(1) * sign).sum(1)
        blue = pixels[:, 2].flatten(1).mean(1)
        near = -((((blue + 3 * pattern)[:, None] - torch.tensor(LEVELS)) / GAP) ** 2) * 4
        return torch.nn.functional.normalize(near.softmax(1) + 1e-3, dim=1)


def _brittle():
    return Pretrained(Brittle(), fakes.FakeTokenizer(), fingerprint="f" * 8)


def _run(model, split, artifacts=False, **settings):
    return AdversarialConfig(**{"templates": "plain", **settings}).build().run(model, split, artifacts)


def test_what_only_an_attack_can_find_is_found_here_and_by_no_other():
    split = colour_models.blues(60)
    sturdy, brittle = colour_models.model(), _brittle()
    clean = [
        ZeroShotConfig(templates="plain").build().run(m, split, False).metrics["acc_at_1"] for m in (sturdy, brittle)
    ]
    assert clean[0] == clean[1]
    blurred = {"templates": "plain", "corruptions": ("gaussian_blur", "contrast", "pixelate")}
    harmless = [
        RobustnessConfig(**blurred).build().run(m, split, False).metrics["corrupted"] for m in (sturdy, brittle)
    ]
    assert harmless[0] == harmless[1]
    found = [_run(m, split, True).metrics for m in (sturdy, brittle)]
    assert found[0]["robust"].value == 1
    assert found[1]["clean"].value == 1
    assert found[1]["robust_at_1"].high < 0.3
    assert found[1]["drop"].low > 0.5


def test_eps_0_is_the_clean_accuracy():
    split = colour_models.blues(40)
    split._meta[3] = {"label": "kind_0"}  # wrong in any case
    result = _run(_brittle(), split, eps=(0.0,))
    clean = ZeroShotConfig(templates="plain").build().run(_brittle(), split, False).metrics["acc_at_1"].value
    assert result.metrics["robust_at_0"].value == result.metrics["clean"].value == clean == 39 / 40
    assert result.metrics["drop"].value == 0


def test_both_judges_and_losses():
    split = colour_models.blues(40)
    one = {j: _run(_brittle(), split, eps=(0.25,), judge=j).metrics["robust"].value for j in ("any", "last")}
    assert one["any"] <= one["last"]
    assert _run(_brittle(), split, loss="margin").metrics["robust_at_4"].value < 0.3
    assert _run(_brittle(), split, steps=1).metrics["robust"].value >= _run(_brittle(), split).metrics["robust"].value


def test_captions_are_what_retrieval_is_attacked_by():
    split = colour_models.blues(30, captions=True)
    result = _run(_brittle(), split, True)
    assert (result.settings["choices"], result.settings["texts"]) == ("captions", 4)
    assert result.metrics["robust"].value < result.metrics["clean"].value
    assert result.metrics["robust"].chance == 0.25


def test_figures_and_items():
    result = _run(_brittle(), colour_models.blues(30), True, pictures=3)
    assert from_json(to_json(result)).figures == result.figures
    curve, drops, turned = result.figures
    assert (curve.x, curve.series["accuracy"][0], len(drops.rows), len(turned.pictures)) == ((0, 1, 2, 4), 1, 3, 3)
    values = result.items["images"].values
    assert np.mean([values[f"robust_at_{e}"] for e in (1, 2, 4)]) == pytest.approx(result.metrics["robust"].value)


def test_errors_and_what_does_not_suit():
    split = colour_models.blues(6)
    assert AdversarialConfig().unsuited(colour_models.model(), split) == ""
    assert "no embeddings with gradients" in AdversarialConfig().unsuited(fakes.model(fakes.Scores), split)
    with pytest.raises(EvalError, match="adversarial must be given a model with embed_image, embed_text"):
        _run(fakes.model(fakes.Scores), split)
    with pytest.raises(ConfigError, match="eps must be different numbers of 0 to 255"):
        AdversarialConfig(eps=(300.0,))


def contract_cases():
    def maker(choices):
        def case(perfect, n):
            split = colour_models.blues(n)
            settings = {"templates": "plain", "choices": choices, "steps": 2}
            return Case(colour_models.model(perfect=perfect), split, settings, n)

        return case

    return {choices: maker(choices) for choices in ("labels", "captions")}
