"""What every eval is: it names what it needs, and returns estimates with their uncertainty and chance level."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from pydantic import Field

from diptych.core.config import Config
from diptych.models.pretrained import Pretrained


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


class EvalResult(Config):
    """What an eval found: metrics by name, tables and pictures for the report (JSON values), and where it came from."""

    task: str
    data: str
    split: str
    metrics: dict[str, Estimate]
    settings: dict[str, Any] = Field(default_factory=dict)
    artifacts: dict[str, Any] = Field(default_factory=dict)
    fingerprint: str = ""
    samples_seen: int | None = None


class EvalConfig(Config):
    """Base of every eval's settings."""

    abstract: ClassVar[bool] = True
    data: str = ""
    """A packed dataset's folder; empty: the run's own data."""
    split: str = ""
    """Which split of it; empty: val if there is one, else test, else train."""
    max_items: int = Field(0, ge=0)
    """Evaluate at most so many images, always the same ones, spread over the split at random; 0: all."""

    def build(self) -> "Eval":
        """The eval."""
        raise NotImplementedError


class Eval(ABC):
    """A benchmark. `needs` are names of capabilities; `headline` is the metric that is shown when only one can be, and
    `best` what a perfect model reaches in it."""

    needs: ClassVar[tuple[str, ...]] = ()
    headline: ClassVar[str] = ""
    best: ClassVar[float] = 1.0

    @abstractmethod
    def run(self, model: Pretrained, data: Any, artifacts: bool = True) -> EvalResult:
        """Evaluate `model` on `data` (a diptych.data.dataset.Split). `artifacts` False: only numbers (in training)."""
