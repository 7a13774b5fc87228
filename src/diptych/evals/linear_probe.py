"""The linear probe of CLIP's paper: what a straight cut through frozen image features can tell apart."""

import math
import warnings
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor

from diptych.core.errors import EvalError
from diptych.evals.class_results import (
    blind_chance,
    class_figures,
    class_items,
    class_metrics,
    predictions,
)
from diptych.evals.eval import Eval, EvalResult
from diptych.evals.frozen_features import FeaturesConfig, Labelled, ProbeData, held_out, read_probe_data
from diptych.models.pretrained import Pretrained
from diptych.report.figures import Figure, Lines, Words

GRID = 10.0 ** (-6 + np.arange(97) / 8)
"""The values of lambda: 96 steps of an eighth of a decade from 1e-6 to 1e6."""

COARSE = 16
"""Steps of the grid between the values that are tried first: two decades."""

ITERATIONS = 1000


class LinearProbeConfig(FeaturesConfig):
    """Settings of the linear probe.

    C                 the inverse of lambda, as in scikit-learn; 0: found on validation images by the sweep
    validation_split  where the sweep validates; empty: val if there is one and it is not judged, else a share of train
    validation_share  that share
    """

    C: float = Field(0.0, ge=0)
    validation_split: str = ""
    validation_share: float = Field(0.2, gt=0, lt=1)
    iterations: int = Field(ITERATIONS, ge=1)

    full: ClassVar[dict[str, Any] | None] = {"max_train": 2000, "max_items": 5000}

    def build(self) -> "LinearProbe":
        """The eval."""
        return LinearProbe(self)

    def unsuited(self, model: Pretrained, data: Any) -> str:
        """Also without scikit-learn."""
        return super().unsuited(model, data) or ("" if has_sklearn() else "scikit-learn is not installed")


class Tried(NamedTuple):
    """A value of the sweep: its place on GRID, the share of validation images that are right, and L-BFGS's steps."""

    place: int
    accuracy: float
    steps: int


class LinearProbe(Eval):
    """acc@1, acc@5 and mean per-class recall of L2-regularised logistic regression on frozen features.

    Radford et al., arXiv:2103.00020, A.3: scikit-learn's L-BFGS, at most 1000 iterations; lambda = 1/C among 96
    logarithmic steps over [1e-6, 1e6], first every two decades, then with half the step around the best until it is an
    eighth of a decade; validated on held-out images, then learned anew on train and validation together.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    headline: ClassVar[str] = "acc_at_1"

    def __init__(self, config: LinearProbeConfig) -> None:
        self.config = config

    def run(self, model: Pretrained, data: Any, artifacts: bool = True) -> EvalResult:
        """Learn on the train split of the data that `data` belongs to, and judge on `data`."""
        config = self.config
        require_sklearn("linear_probe")
        probe = read_probe_data(config, model, data, "linear_probe")
        size, judged = len(probe.classes.names), probe.judged
        tried: list[Tried] = []
        c, learn, validated_on = config.C, probe.train, "nothing: C is given"
        if not config.C:
            fit, validate, validated_on = self._validation(probe)
            tried = sweep(fit, validate, size, config.iterations)
            best = max(tried, key=lambda t: (t.accuracy, t.place))
            c = float(1 / GRID[best.place])
            learn = join(fit, validate)
        weights = fit_logistic(learn.features, learn.truth, c, config.iterations)
        guesses = predictions(weights.scores(judged.features, size), judged.truth)
        chance = blind_chance(learn.truth, judged.truth)
        about = {
            **probe.about,
            "chosen_C": c,
            "chosen_lambda": 1 / c,
            "validated_on": validated_on,
            "steps": weights.steps,
            "converged": weights.steps < config.iterations,
            "learned_images": len(learn.truth),
        }
        return config.result(
            model,
            data,
            metrics=class_metrics(guesses, judged, size, chance, config.bootstrap, config.seed),
            settings=about,
            items=class_items(guesses, judged, size) if artifacts else {},
            figures=(
                self._figures(tried, about) + class_figures(guesses, judged, probe.classes, config.pictures)
                if artifacts
                else ()
            ),
        )

    def _validation(self, probe: ProbeData) -> tuple[Labelled, Labelled, str]:
        """What the sweep learns from, what it validates on, and that in words."""
        config, train, judged = self.config, probe.train, probe.judged
        name = config.validation_split
        if not name and "val" in probe.splits and "val" not in (config.train_split, judged.split.name):
            name = "val"
        if name == judged.split.name:
            raise EvalError(
                f"linear_probe must choose C on other images than it is judged on; got {name!r} for both. "
                "Leave validation_split out: a share of train is taken."
            )
        if name:
            return train, probe.read(name), f"the split {name}"
        mask = held_out(len(train.truth), config.validation_share, config.seed, "validation")
        return train.some(~mask), train.some(mask), f"{config.validation_share:.0%} of {config.train_split}"

    def _figures(self, tried: list[Tried], about: dict[str, Any]) -> tuple[Figure, ...]:
        rows = (
            ("features", f"{about['features']}, {about['feature_size']} numbers"),
            ("images learned from", f"{about['learned_images']:,}"),
            ("of them also judged", f"{about['train_images_also_judged']:,} ({self.config.duplicates})"),
            ("C", f"{about['chosen_C']:.4g} (lambda {about['chosen_lambda']:.4g})"),
            ("chosen on", about["validated_on"]),
            ("steps of L-BFGS", f"{about['steps']}" + ("" if about["converged"] else " (not converged)")),
        )
        words = Words(title="The probe", head=("", ""), rows=rows)
        if not tried:
            return (words,)
        ordered = sorted(tried)
        late = sum(t.steps >= self.config.iterations for t in tried)
        curve = Lines(
            title="The sweep",
            words=f"Accuracy on {about['validated_on']} against the regularisation; {late} of {len(tried)} fits "
            f"stopped at {self.config.iterations} steps.",
            x=tuple(math.log10(GRID[t.place]) for t in ordered),
            series={"validation accuracy": tuple(t.accuracy for t in ordered)},
            x_label="log10 lambda",
            y_label="accuracy",
        )
        return (words, curve)


class Logistic(NamedTuple):
    """A learned logistic regression over the classes that it has seen."""

    classes: Int64[np.ndarray, " k"]
    coefficients: Float[Tensor, "k d"]
    intercepts: Float[Tensor, " k"]
    steps: int

    def scores(self, features: Float[Tensor, "n d"], num_classes: int) -> Float[Tensor, "n {num_classes}"]:
        """Log-odds of all classes, -inf of those never seen."""
        found = torch.full((len(features), num_classes), -math.inf, dtype=torch.float64)
        found[:, torch.from_numpy(self.classes)] = features.double() @ self.coefficients.T + self.intercepts
        return found


def fit_logistic(
    features: Float[Tensor, "n d"], truth: Int64[np.ndarray, " n"], c: float, iterations: int = ITERATIONS
) -> Logistic:
    """scikit-learn's logistic regression (L2, L-BFGS): min 1/2 |w|^2 + c * sum of cross-entropies, in float64."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    learner = LogisticRegression(C=c, max_iter=iterations)
    with warnings.catch_warnings():  # it is said in the settings how many steps were made
        warnings.simplefilter("ignore", ConvergenceWarning)
        learner.fit(features.double().numpy(), truth)
    weights, bias = torch.from_numpy(learner.coef_), torch.from_numpy(learner.intercept_)
    if len(learner.classes_) == 2:  # one row, of the second class against the first
        weights, bias = torch.cat([0 * weights, weights]), torch.cat([0 * bias, bias])
    return Logistic(np.asarray(learner.classes_), weights, bias, int(np.max(learner.n_iter_)))


def sweep(fit: Labelled, validate: Labelled, num_classes: int, iterations: int = ITERATIONS) -> list[Tried]:
    """The values of lambda that were tried, in their order: coarse ones, then with half the step around the best.

    Of equally good values the largest lambda counts as best, which is the simplest probe.
    """
    tried: dict[int, Tried] = {}

    def attempt(place: int) -> None:
        if 0 <= place < len(GRID) and place not in tried:
            learned = fit_logistic(fit.features, fit.truth, float(1 / GRID[place]), iterations)
            right = learned.scores(validate.features, num_classes).argmax(1).numpy() == validate.truth
            tried[place] = Tried(place, float(right.mean()), learned.steps)

    for place in range(0, len(GRID), COARSE):
        attempt(place)
    step = COARSE // 2
    while step:
        best = max(tried.values(), key=lambda t: (t.accuracy, t.place)).place
        attempt(best - step)
        attempt(best + step)
        step //= 2
    return list(tried.values())


def join(a: Labelled, b: Labelled) -> Labelled:
    """The images of both. Their split is that of the first: places of the second point elsewhere."""
    return Labelled(
        a.split,
        a.places + b.places,
        a.hashes + b.hashes,
        torch.cat([a.features, b.features]),
        np.concatenate([a.truth, b.truth]),
    )


def has_sklearn() -> bool:
    """Whether scikit-learn can be imported."""
    try:
        import sklearn.linear_model  # noqa: F401
    except ImportError:
        return False
    return True


def require_sklearn(who: str) -> None:
    """Raise EvalError that says what to install, without scikit-learn."""
    if not has_sklearn():
        raise EvalError(
            f"{who} must have scikit-learn for its logistic regression; got a Python without it. "
            "Install it: pip install 'diptych[probes]'"
        )
