"""Do the modalities meet? What is hidden of an image is rebuilt beside its words, and what is hidden of a text beside
its picture: if another pair's words and picture are worth as much, nothing of them was used.

For every model that fills in: MaskVLM, FLAVA, BEiT-3 (`models/capabilities.py: FillsIn`).
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float64
from pydantic import Field

from diptych.data.image_reader import ImageReader
from diptych.evals.eval import Estimate, Eval, EvalConfig, EvalResult, some
from diptych.evals.filled_pairs import CONDITIONS, SIDES, Errors, Hiding, Pairs, error_name, measure, read_pairs
from diptych.evals.filling_figures import filling_figures
from diptych.evals.items import item_table
from diptych.evals.scoring import choose_places, describe_broken, paired_values
from diptych.evals.statistics import PairedTest, bootstrap_mean, holm, mean_estimate, paired_difference
from diptych.models.pretrained import Pretrained
from diptych.nn.patch_masking import PatchMaskingConfig
from diptych.nn.token_masking import TokenMaskingConfig

HELP = {"image": "words_help", "text": "picture_help"}
"""What the other side is worth, by the side that is rebuilt."""
PREFERRED = {"image": "words_preferred", "text": "picture_preferred"}
"""How often the right other side is worth more than a wrong one."""


class FillingInConfig(EvalConfig):
    """Settings of the filling_in eval."""

    patches: float = Field(0.6, gt=0, lt=1)
    """Share of an image's cells that is hidden."""
    shape: Literal["random", "block"] = "random"
    """How: each alike, or in rectangles (BEiT's)."""
    tokens: float = Field(0.3, gt=0, le=1)
    """Share of a text's tokens that is hidden, at least one; its first and last never are."""
    batch_size: int = Field(64, ge=1)
    bootstrap: int = Field(1000, ge=100)
    seed: int = 0
    pictures: int = Field(12, ge=0)
    """How many images the report shows, and as many texts."""

    quick: ClassVar[Mapping[str, Any] | None] = {"max_items": 200}
    full: ClassVar[Mapping[str, Any] | None] = {"max_items": 2000}

    def build(self) -> "FillingIn":
        """The eval."""
        return FillingIn(self)

    def unsuited(self, model: Pretrained, data: Any) -> str:
        """Also where records have no captions."""
        without = not any(data.captions(p) for p in some(data))
        return super().unsuited(model, data) or ("its records have no captions" if without else "")

    @property
    def hiding(self) -> Hiding:
        """How much is hidden."""
        return Hiding(
            PatchMaskingConfig(rate=self.patches, shape=self.shape), TokenMaskingConfig(rate=self.tokens), self.seed
        )


class FillingIn(Eval):
    """How badly hidden cells and hidden tokens are rebuilt with the right other side, with another pair's, without it.

    `partner_preferred` is the share of both tasks in which the right other side helps more than a wrong one (a tie is
    half): chance is 0.5 for any model that looks at one side only. The differences are paired, pair by pair; items with
    equal images are one cluster. Definitions: docs/reference/evals-filling-in.md.
    """

    needs: ClassVar[tuple[str, ...]] = ("fill_in",)
    headline: ClassVar[str] = "partner_preferred"

    def __init__(self, config: FillingInConfig) -> None:
        self.config = config

    def run(self, model: Pretrained, data: Any, artifacts: bool = True) -> EvalResult:
        """Evaluate `model` on the split `data`."""
        config = self.config
        reader = ImageReader(data, model.model.config.image_format, config.batch_size)
        pairs = read_pairs(model, reader, choose_places(data, config.max_items), config.seed, "filling_in")
        found = Found(config, pairs, measure(model, reader, pairs, config.hiding, "filling_in"))
        network: Any = model.model
        settings = {
            "pairs": len(pairs),
            "distinct_images": len(np.unique(pairs.clusters)),
            "unit_of_images": network.fill_unit,
            "unit_of_texts": "nats a token",
            "grid": list(network.fill_grid()),
            "too_short": pairs.too_short,
            "broken_images": describe_broken(reader),
        }
        uids = [data.uid(p) for p in pairs.places]
        return config.result(
            model,
            data,
            metrics=found.metrics,
            settings=settings,
            items={"pairs": item_table(uids, found.values, pairs.clusters)} if artifacts else {},
            figures=filling_figures(found, model, reader) if artifacts else (),
            artifacts={"tests": found.verdicts()} if artifacts else {},
        )


class Found:
    """What was found of every pair (`values`, by metric), their means, and the paired tests."""

    def __init__(self, config: FillingInConfig, pairs: Pairs, errors: Errors) -> None:
        self.config, self.pairs, self.errors = config, pairs, errors
        self.values: dict[str, Float64[np.ndarray, " n"]] = {}
        for side in SIDES:
            right, other, none = (errors[side, c] for c in CONDITIONS)
            self.values |= {error_name(side, c): errors[side, c] for c in CONDITIONS}
            self.values |= {HELP[side]: other - right, f"{HELP[side]}_over_none": none - right}
            self.values[PREFERRED[side]] = (right < other) + 0.5 * (right == other)
        self.values["partner_preferred"] = sum((self.values[PREFERRED[s]] for s in SIDES), np.zeros(len(pairs))) / 2

    @cached_property
    def tests(self) -> dict[str, PairedTest]:
        """Of what the other side is worth, over another's and over none."""
        tests = {}
        for side in SIDES:
            for name, condition in ((HELP[side], "other"), (f"{HELP[side]}_over_none", "none")):
                tests[name] = paired_difference(
                    self.errors[side, condition], self.errors[side, "right"], self.pairs.clusters, seed=self.config.seed
                )
        return tests

    @cached_property
    def metrics(self) -> dict[str, Estimate]:
        """Every number. Of errors lower is better; what the other side is worth is 0 by chance."""
        n = int(np.unique(self.pairs.clusters).size)
        how = {"samples": self.config.bootstrap, "seed": self.config.seed}
        metrics = {}
        for name in ("partner_preferred", *PREFERRED.values()):
            metrics[name] = mean_estimate(self.values[name], self.pairs.clusters, 0.5, **how)
        for name, test in self.tests.items():
            metrics[name] = Estimate(value=test.difference, low=test.low, high=test.high, chance=0.0, n=n)
        for side in SIDES:
            for condition in CONDITIONS:
                name = error_name(side, condition)
                metrics[name] = self._level(self.values[name], n)
        return metrics

    def verdicts(self) -> dict[str, dict[str, Any]]:
        """The paired tests as JSON values, adjusted for their number (Holm)."""
        adjusted = holm({name: t.p_value for name, t in self.tests.items()})
        return {
            name: {**paired_values(t, _verdict(t, adjusted[name])), "adjusted_p_value": adjusted[name]}
            for name, t in self.tests.items()
        }

    def _level(self, values: Float64[np.ndarray, " n"], n: int) -> Estimate:
        """The mean of errors, which have no upper end, with its interval."""
        value, least, spread = float(values.mean()), float(values.min()), float(np.ptp(values))
        if spread <= 1e-12:
            return Estimate(value=value, low=value, high=value, n=n, higher_is_better=False)
        shares = (values - least) / spread
        ends = bootstrap_mean(shares, self.pairs.clusters, self.config.bootstrap, self.config.seed)
        low, high = (least + spread * x for x in ends)
        return Estimate(value=value, low=min(low, value), high=max(high, value), n=n, higher_is_better=False)


def _verdict(test: PairedTest, p_value: float) -> str:
    says = test.verdict(p_value=p_value)
    return {"better": "helps", "worse": "harms"}.get(says, "not told apart")
