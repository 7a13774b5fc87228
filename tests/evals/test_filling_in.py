import numpy as np
import pytest
import torch

from diptych.core.errors import EvalError
from diptych.evals.filling_in import FillingInConfig
from tests.evals import fakes, fill_models
from tests.evals.contract import Case


def _run(model, split, artifacts=False, **settings):
    return FillingInConfig(**settings).build().run(model, split, artifacts)


def test_errors_and_what_the_other_side_is_worth_are_what_was_planted():
    result = _run(fill_models.model(), fakes.pairs(40), True)
    e = result.metrics
    right = np.mean([0.1 + i % 7 / 100 for i in range(40)])
    for side, words in (("image", "words"), ("text", "picture")):
        assert e[f"{side}_error"].value == pytest.approx(right, abs=1e-6)
        assert e[f"{side}_error_with_other_{words}"].value == pytest.approx(1.0)
        assert e[f"{side}_error_without_{words}"].value == pytest.approx(0.5)
        assert e[f"{words}_help"].value == pytest.approx(1 - right, abs=1e-6)
        assert e[f"{words}_help_over_none"].value == pytest.approx(0.5 - right, abs=1e-6)
        assert e[f"{words}_help"].above_chance
    assert {t["verdict"] for t in result.artifacts["tests"].values()} == {"helps"}
    assert result.settings["unit_of_images"] == "parts of a colour"
    assert result.settings["grid"] == [2, 2]


class ReadsNothing(fill_models.Fills):
    """Rebuilds well, and looks at one side only."""

    def _errors(self, own, other, what):
        return super()._errors(own, own, what)


def test_a_model_that_looks_at_one_side_only_is_at_chance():
    result = _run(fill_models.model(ReadsNothing), fakes.pairs(40), True)
    e = result.metrics["partner_preferred"]
    assert (e.value, e.chance) == (0.5, 0.5)
    assert not e.above_chance
    assert result.metrics["words_help"].value == 0
    assert {t["verdict"] for t in result.artifacts["tests"].values()} == {"not told apart"}


def test_random_errors_are_told_apart_in_nothing():
    result = _run(fill_models.model(perfect=False), fakes.pairs(200), True)
    for name in ("words_help", "picture_help"):
        e = result.metrics[name]
        assert e.low <= 0 <= e.high
    assert {t["verdict"] for t in result.artifacts["tests"].values()} == {"not told apart"}


def test_the_batch_around_a_pair_changes_nothing():
    one = _run(fill_models.model(perfect=False), fakes.pairs(30), batch_size=7)
    assert one.metrics == _run(fill_models.model(perfect=False), fakes.pairs(30), batch_size=30).metrics


def test_equal_images_are_one_cluster():
    split = fakes.pairs(20)
    split.images[1] = split.images[0]
    result = _run(fill_models.model(), split, True)
    assert result.metrics["partner_preferred"].n == result.settings["distinct_images"] == 19
    assert len(result.items["pairs"].keys) == 20


def test_what_it_cannot_use_is_said():
    with pytest.raises(EvalError, match=r"filling_in must be given at least 2 pairs .* got 1 of 1"):
        _run(fill_models.model(), fakes.pairs(1))
    split = fakes.pairs(5)
    split._captions = [("thing 1",)] * 5
    with pytest.raises(EvalError, match="pairs that differ in image and caption; got 5"):
        _run(fill_models.model(), split)
    split = fakes.pairs(5)
    split._captions = [()] * 5
    assert FillingInConfig().unsuited(fill_models.model(), split) == "its records have no captions"
    assert FillingInConfig().unsuited(fakes.model(), fakes.pairs(5)) == "the model has no fill_in"
    assert FillingInConfig().unsuited(fill_models.model(), fakes.pairs(5)) == ""


class Breaks(fill_models.Fills):
    """Its errors are no numbers."""

    def _errors(self, own, other, what):
        return super()._errors(own, other, what) * float("nan")


def test_errors_that_are_no_numbers_are_said():
    with pytest.raises(EvalError, match="must be given finite errors; got 4 of 4"):
        _run(fill_models.model(Breaks), fakes.pairs(4))


def test_levels_that_do_not_differ_have_no_spread():
    class Even(fill_models.Fills):
        def _errors(self, own, other, what):
            return torch.full((len(own),), 3.0)

    e = _run(fill_models.model(Even), fakes.pairs(6)).metrics["image_error"]
    assert (e.low, e.value, e.high) == (3, 3, 3)


def contract_cases():
    def case(kind):
        return lambda perfect, n: Case(fill_models.model(kind, perfect), fakes.pairs(n), {}, n)

    return {"Rebuilds": case(fill_models.Rebuilds), "Fills": case(fill_models.Fills)}
