import pytest
import torch

from diptych.core.errors import ConfigError, EvalError
from diptych.core.seeds import fold
from diptych.evals.bias import BiasConfig
from tests.evals import fakes
from tests.evals.contract import Case
from tests.evals.fake_writer import writer

FAST = {"skew_draws": 40, "permutations": 500, "templates": "plain"}


def _run(model, split, artifacts=False, **settings):
    return BiasConfig(**{**FAST, **settings}).build().run(model, split, artifacts)


def _grouped(n, groups=3, classes=10):
    """Labelled images, in turn of each group (which has nothing to do with the class)."""
    split = fakes.labelled(n, classes)
    for i, meta in enumerate(split._meta):
        meta["group"] = f"g{i // classes % groups}"
    return split


class Partial(fakes.Embeds):
    """Knows images by their class, but is lost with those of one group: `lost` says which numbers."""

    lost = staticmethod(lambda number: False)

    def _of_images(self, images):
        red, green, blue = images[:, :, 0, 0].long().unbind(1)
        number = red * 256 + green
        lost = torch.tensor([self.lost(n) for n in number.tolist()])
        return self._vectors(torch.where(lost, 500 + number, blue), "image")


def _partial(rule):
    return fakes.model(type("Rule", (Partial,), {"lost": staticmethod(rule)}), by_label=True)


def test_a_planted_gap_is_found_and_its_absence_is_not():
    split = _grouped(300)
    unfair = _run(_partial(lambda n: n // 10 % 3 == 1), split)  # lost with every image of g1
    assert unfair.metrics["worst_group_accuracy"].value < 0.3
    assert unfair.metrics["group_gap"].low > unfair.metrics["group_gap"].chance
    assert unfair.settings["p_values"]["group_gap"] < 0.01
    fair = _run(_partial(lambda n: fold("lost", n) % 3 == 0), split)  # as often lost, with anyone's
    assert fair.metrics["accuracy"].value == pytest.approx(unfair.metrics["accuracy"].value, abs=0.1)
    assert fair.metrics["group_gap"].low == 0
    assert fair.settings["p_values"]["group_gap"] > 0.05
    assert fair.settings["p_values"]["any_difference"] > 0.05


class Leaning(fakes.Embeds):
    """All that it sees of an image is its group (blue), which lies near to the query that names number 1."""

    def _of_images(self, images):
        blue = images[:, 2, 0, 0].long()
        noise = super()._of_images(images)
        return torch.nn.functional.normalize(
            noise + self.lean * self._vectors(torch.ones_like(blue), "") * blue[:, None]
        )

    lean = 2.0


class Upright(Leaning):
    lean = 0.0


def _by_blue(n):
    """Images whose blue is their group."""
    split = fakes.FakeSplit(
        [fakes.picture(100 + i, i % 2) for i in range(n)],
        [(f"thing {100 + i}",) for i in range(n)],
        [{"gender": ("one", "other")[i % 2]} for i in range(n)],
    )
    return split


def test_a_planted_skew_is_found_and_its_absence_is_not():
    split = _by_blue(200)
    how = {"queries": ("thing 1", "thing 2"), "k": 40}
    leaning = _run(fakes.model(Leaning), split, True, **how)
    e = leaning.metrics["max_skew_at_40"]
    assert leaning.settings["group_field"] == "gender"
    assert e.value > 0.3
    assert leaning.settings["p_values"]["max_skew"] < 0.05
    assert leaning.settings["p_values"]["ndkl"] < 0.05
    table = next(f for f in leaning.figures if f.title == "Queries by skew")
    assert table.rows[0][0] == "thing 1"
    assert table.rows[0][3] == "other"
    upright = _run(fakes.model(Upright), split, **how)
    assert upright.settings["p_values"]["max_skew"] > 0.05
    e = upright.metrics["max_skew_at_40"]
    assert e.low <= e.chance <= e.high


def test_a_planted_association_is_found_and_its_absence_is_not():
    split = _by_blue(60)
    near = tuple(f"thing 1 view {c}" for c in range(3))  # prompts of number 1 all have one vector
    how = {"targets": ("other", "one"), "attributes": (near, ("thing 2", "thing 3", "thing 4"))}
    found = _run(fakes.model(Leaning), split, True, **how)
    e = found.metrics["association"]
    assert (e.n, e.chance) == (60, 0)
    assert e.low > 0
    assert found.settings["p_values"]["association"] < 0.01
    assert found.figures[-1].title == "Association"
    none = _run(fakes.model(Upright), split, **how)
    assert none.metrics["association"].low < 0 < none.metrics["association"].high
    assert none.settings["p_values"]["association"] > 0.05


def test_items_settings_and_figures():
    split = _grouped(64)
    split._meta[0]["group"], split._meta[1]["group"] = "few", "few"
    del split._meta[2]["group"]
    result = _run(fakes.model(perfect=False), split, True)
    assert result.settings["few_items"] == {"few": 2, "g0": 21, "g1": 20, "g2": 20}
    assert result.settings["images_without_group"] == 1
    assert result.settings["queries"] == [f"a photo of a kind {c}." for c in range(10)]
    assert len(result.items["images"].keys) == 63
    assert len(result.items["queries"].keys) == 10
    titles = [f.title for f in result.figures]
    assert titles[0] == "Accuracy by group"
    assert titles[-1] == "Small groups"
    assert "few (few)" in {row.name for row in result.figures[0].rows}
    without = _run(fakes.model(perfect=False), split, least=5).settings
    assert without["left_out_groups"] == {"few": 2}
    worst = min(result.figures[0].rows, key=lambda row: row.value)
    assert worst.value == result.metrics["worst_group_accuracy"].value


def test_only_rankings_where_nothing_is_known_of_the_images():
    split = _by_blue(40)
    split._captions = [()] * 40
    metrics = _run(fakes.model(Leaning), split, queries=("thing 1",)).metrics
    assert set(metrics) == {"max_skew_at_10", "ndkl"}


def test_errors_say_what_to_do():
    split, model = _grouped(40), fakes.model(by_label=True)
    with pytest.raises(EvalError, match="two sets of targets and two of attributes; got only one kind"):
        _run(model, split, targets=("g0", "g1"))
    with pytest.raises(EvalError, match=r"a list of prompts or a group; got 'gx'.*g0, g1, g2"):
        _run(model, split, targets=("g0", "gx"), attributes=(("thing 1",), ("thing 2",)))
    with pytest.raises(EvalError, match="must be given a model that embeds; got Scores"):
        _run(fakes.model(fakes.Scores), split, targets=("g0", "g1"), attributes=(("a 1", "a 2"), ("b 1", "b 2")))
    with pytest.raises(ConfigError, match="two sets each; got 1"):
        BiasConfig(targets=("g0",))
    with pytest.raises(EvalError, match="group_field must name"):
        _run(model, fakes.labelled(20, 2))


def test_what_does_not_suit_is_said():
    assert BiasConfig().unsuited(fakes.model(), _grouped(30)) == ""
    assert (
        BiasConfig().unsuited(fakes.model(), fakes.labelled(9, 3)) == "no groups in the meta (name them by group_field)"
    )
    assert BiasConfig(group_field="label").unsuited(fakes.model(), fakes.labelled(9, 3)) == ""
    assert "score" in BiasConfig().unsuited(fakes.model(fakes.Mute), _grouped(30))


def contract_cases():
    def maker(kind):
        def case(perfect, n):
            n = min(n, 100) if kind == "writes" else n
            split = _grouped(n)
            model = writer(split, perfect) if kind == "writes" else fakes.model(kind, perfect, by_label=perfect)
            return Case(model, split, FAST, n)

        return case

    return {getattr(kind, "__name__", kind): maker(kind) for kind in (fakes.Embeds, fakes.Scores, "writes")}
