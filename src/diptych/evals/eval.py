"""What every eval is: it names what it needs, and returns estimates with their uncertainty and chance level."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int, Shaped
from pydantic import Field

from diptych.core.config import Config, to_dict
from diptych.models.capabilities import capabilities_of
from diptych.models.pretrained import Pretrained
from diptych.report.figures import Figure


class Estimate(Config):
    """A number with its 95 % interval, the level that guessing reaches, and how many independent items it rests on."""

    value: float
    low: float
    high: float
    chance: float | None = None
    n: int = 0
    higher_is_better: bool = True

    @property
    def above_chance(self) -> bool:
        """Whether the whole interval lies on the better side of chance."""
        if self.chance is None:
            return False
        return self.low > self.chance if self.higher_is_better else self.high < self.chance


@dataclass(frozen=True, eq=False)
class ItemTable:
    """What each item of an eval brought, so that two models can be compared on the same items.

    `keys` name the items, alike for every model (a uid, or a uid and a number); `clusters` say which items belong
    together, being about one image (None: none do); `values` hold by metric a number an item, whose mean is the
    metric: a share's hits are 0 or 1, a macro average's are weighted (n / (classes x n of the class)).
    """

    keys: tuple[str, ...]
    values: dict[str, Shaped[np.ndarray, " n"]]
    clusters: Int[np.ndarray, " n"] | None = None

    def __eq__(self, other: object) -> bool:
        """Whether all is equal, array by array."""
        if not isinstance(other, ItemTable) or self.keys != other.keys or list(self.values) != list(other.values):
            return False
        if (self.clusters is None) != (other.clusters is None):
            return False
        mine, theirs = ([*t.values.values(), *([] if t.clusters is None else [t.clusters])] for t in (self, other))
        return all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))

    __hash__ = None  # type: ignore[assignment]  # arrays have none


class EvalResult(Config):
    """What an eval found: metrics by name, what each item brought, figures and other artifacts for the report (JSON
    values), and where it came from.

    `items` are by population (images, captions, questions), and are kept in a file beside (`evals/find.py`).
    """

    task: str
    data: str
    split: str
    metrics: dict[str, Estimate]
    settings: dict[str, Any] = Field(default_factory=dict)
    items: dict[str, Any] = Field(default_factory=dict, exclude=True)
    """Of `ItemTable`, which is no setting but arrays."""
    figures: tuple[Figure, ...] = ()
    artifacts: dict[str, Any] = Field(default_factory=dict)
    fingerprint: str = ""
    key: str = ""
    """A hash of all that the numbers depend on (model, data, settings): an equal one needs no second run."""
    samples_seen: int | None = None


class EvalConfig(Config):
    """Base of every eval's settings."""

    abstract: ClassVar[bool] = True
    data: str = ""
    """A packed dataset's folder, or data as it lies (PATH or PATH,option=value); empty: the run's own data."""
    split: str = ""
    """Which split of it; empty: val if there is one, else test, else train."""
    max_items: int = Field(0, ge=0)
    """Evaluate at most so many images, always the same ones, spread over the split at random; 0: all."""
    label: str = ""
    """A name of its own, where one eval is run more than once on the same split with other settings."""

    quick: ClassVar[Mapping[str, Any] | None] = None
    """Settings with which this eval belongs to the quick suite (max_items, fewer templates); None: only to the full."""
    full: ClassVar[Mapping[str, Any] | None] = {}
    """Settings with which it belongs to the full suite; None: to none, being asked for by name."""

    @property
    def task(self) -> str:
        """The eval's name, which is that of its file."""
        return type(self).__module__.rpartition(".")[2]

    def build(self) -> "Eval":
        """The eval."""
        raise NotImplementedError

    def result(
        self,
        model: Pretrained,
        data: Any,
        metrics: dict[str, Estimate],
        settings: Mapping[str, Any],
        items: dict[str, ItemTable] | None = None,
        figures: tuple[Figure, ...] = (),
        artifacts: dict[str, Any] | None = None,
    ) -> EvalResult:
        """What `Eval.run` returns: what was found, under these settings and `settings`, what was learned besides."""
        own = {k: v for k, v in to_dict(self).items() if k != "kind"}
        return EvalResult(
            task=self.task,
            data=self.data,
            split=str(data.name),
            metrics=metrics,
            settings={**own, **settings},
            items=items or {},
            figures=figures,
            artifacts=artifacts or {},
            fingerprint=model.fingerprint,
        )

    def unsuited(self, model: Pretrained, data: Any) -> str:
        """Why this eval cannot be run with `model` on the split `data`, in some words ("no labels in the meta"); "" if
        it can. A look at a few records, not at all: a suite runs what suits and names what it left out."""
        has = capabilities_of(model.model)
        lacking = [name for name in self.build().needs if name not in has]
        return f"the model has no {', '.join(lacking)}" if lacking else ""


def some(data: Any, most: int = 20) -> list[int]:
    """A few places of a split, spread over it: for a look at what its records hold."""
    size = len(data)
    return sorted({i * size // min(most, size) for i in range(min(most, size))})


class Eval(ABC):
    """A benchmark. `needs` are names of capabilities; `headline` is the metric that is shown when only one can be, and
    `best` what a perfect model reaches in it."""

    needs: ClassVar[tuple[str, ...]] = ()
    headline: ClassVar[str] = ""
    best: ClassVar[float] = 1.0

    @abstractmethod
    def run(self, model: Pretrained, data: Any, artifacts: bool = True) -> EvalResult:
        """Evaluate `model` on `data` (a diptych.data.dataset.Split). `artifacts` False: only numbers (in training)."""
