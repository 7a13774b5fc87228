import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

from diptych.core.errors import EvalError
from diptych.evals.baseline_models import logit, sigmoid
from diptych.evals.effective_robustness import EffectiveRobustnessConfig
from tests.evals import colour_models, fakes
from tests.evals.contract import Case


@functools.lru_cache
def _folder():
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, True)
    return folder


@functools.lru_cache
def _pictures(name, n, wrong=0):
    """Folders of classes, of whose pictures the first `wrong` lie in the folder of another class."""
    split = colour_models.blues(n)
    for i in range(n):
        label = (i + (i < wrong)) % 4
        path = _folder() / name / f"kind_{label}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(split.images[i])
    return str(_folder() / name)


def _baselines(name, rows, head="model,usual,shifted"):
    path = _folder() / f"{name}.csv"
    path.write_text("\n".join([head, *(",".join(map(str, r)) for r in rows)]) + "\n")
    return str(path)


def _less(share):
    """A share, a logit lower."""
    return float(sigmoid(logit(np.array([share]), 1e6) - 1)[0])


def _line(usual, other=None):
    """A cloud of models that lose a logit on the shifted data."""
    rows = []
    for i, u in enumerate(usual):
        shifted = _less(u)
        rows.append((f"model {i}", u, *([other[i]] if other else []), shifted))
    return rows


USUAL = (0.3, 0.45, 0.55, 0.7, 0.8, 0.9)


def _shifted(n, wrong):
    split = colour_models.blues(n)
    for i in range(wrong):
        split._meta[i] = {"label": f"kind_{(i + 1) % 4}"}
    return split


def _run(split, model=None, artifacts=False, **settings):
    config = EffectiveRobustnessConfig(**{"templates": "plain", **settings})
    return config.build().run(model or colour_models.model(), split, artifacts)


def test_rho_is_what_is_above_the_line():
    baselines = _baselines("line", _line(USUAL))
    references = (f"usual={_pictures('ninety', 200, 20)}",)  # 90 % right
    on_line = round(200 * (1 - _less(0.9)))
    settings = {"baselines": baselines, "references": references}
    plain = _run(_shifted(200, on_line), **settings).metrics["rho"]
    assert plain.value == pytest.approx(0, abs=0.003)
    assert plain.low < 0 < plain.high
    sturdy = _run(_shifted(200, 10), **settings).metrics
    assert sturdy["rho"].value == pytest.approx(0.95 - _less(0.9))
    assert sturdy["rho"].above_chance
    assert (sturdy["acc_usual"].value, sturdy["acc_shifted"].value) == (0.9, 0.95)
    assert _run(_shifted(200, 120), **settings).metrics["rho"].high < 0


def test_one_reference_may_flatter_and_several_tell():
    """Of a set on which the model is weak one expects little: there it looks sturdy, by the other it does not."""
    other = [u**0.5 for u in USUAL]
    baselines = _baselines("two", _line(USUAL, other), "model,usual,other,shifted")
    strong, weak = _pictures("ninety", 200, 20), _pictures("half", 100, 50)
    references = (f"usual={strong}", f"other={weak}")
    on_line = round(200 * (1 - _less(0.9)))
    result = _run(_shifted(200, on_line), None, True, baselines=baselines, references=references)
    found = result.metrics
    assert found["rho_other"].above_chance
    assert not found["rho_usual"].above_chance
    assert found["rho"].value == found["rho_usual"].value
    assert "rho_all_references" in found
    assert set(result.items) == {"shifted", "reference_usual", "reference_other"}
    assert result.settings["baseline_models"] == 6


def test_few_baselines_make_a_wide_interval():
    rough = [(m, u, min(max(s + (0.1 if i % 2 else -0.1), 0.02), 0.98)) for i, (m, u, s) in enumerate(_line(USUAL))]
    references = (f"usual={_pictures('ninety', 200, 20)}",)
    widths = []
    for rows in (_line(USUAL), rough):
        found = _run(_shifted(200, 50), baselines=_baselines("rough", rows), references=references).metrics["rho"]
        widths.append(found.high - found.low)
    assert widths[1] > 1.2 * widths[0]


def test_errors_and_what_does_not_suit():
    split = _shifted(8, 0)
    assert (
        EffectiveRobustnessConfig().unsuited(colour_models.model(), split) == "it needs baselines=FILE and references"
    )
    given = EffectiveRobustnessConfig(baselines="x.csv", references=("a=b",))
    assert given.unsuited(colour_models.model(), split) == ""
    assert given.unsuited(colour_models.model(), fakes.pairs(4)) == "its records have no labels"
    assert EffectiveRobustnessConfig.full is None
    with pytest.raises(EvalError, match="must be given baselines and references"):
        _run(split)
    with pytest.raises(EvalError, match="COLUMN=DATA or COLUMN=DATA:SPLIT; got '/data'"):
        _run(split, baselines="x.csv", references=("/data",))
    assert EffectiveRobustnessConfig(references=("a=/d:val", "b=/e")).named() == [("a", "/d", "val"), ("b", "/e", "")]


def contract_cases():
    def case(perfect, n):
        split = colour_models.blues(n)
        # one file, which is read when the eval is run; a perfect model is wholly above baselines that are left nothing
        if perfect:
            baselines = _baselines("contract", [(f"model {i}", u, 0.0) for i, u in enumerate(USUAL)])
        else:
            baselines = _baselines("contract", [(f"model {i}", u, u) for i, u in enumerate((0.1, *USUAL))])
        references = (f"usual={_pictures('right', 100)}",)
        settings = {"templates": "plain", "baselines": baselines, "references": references}
        return Case(colour_models.model(perfect=perfect), split, settings, n)

    return {"embeds": case}
