"""Composition: of captions that differ in one fact, does the model prefer the right one? And would it, blind?

Winoground's siblings that have one image an item: ARO, SugarCrepe, VALSE, and the generated `scene_tests`. Some of them
can be solved without looking, so what can be known from the captions alone stands beside every number.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float64, Int64
from pydantic import Field

from diptych.core.config import to_dict
from diptych.core.errors import EvalError
from diptych.data.image_reader import ImageReader
from diptych.evals.candidates import Item, Scored, distractors_of, hits, margins, padded, read_items, score_items
from diptych.evals.composition_figures import composition_figures
from diptych.evals.eval import Estimate, Eval, EvalResult, ItemTable
from diptych.evals.items import item_table, numbered
from diptych.evals.macro import macro_estimate, macro_weights
from diptych.evals.open_data import open_data
from diptych.evals.scoring import (
    PairScoringConfig,
    choose_places,
    choose_scoring,
    dataset_folder,
    describe_broken,
    paired_values,
)
from diptych.evals.statistics import PairedTest, holm, mean_estimate, paired_difference
from diptych.evals.text_only import Choice, LikelyWords, TellingWords
from diptych.models.pretrained import Pretrained

CAPTIONS = 20_000
"""Captions of the train split that the likely words are learned from, at most."""

MODEL_FREE = ("likely_words", "telling_words")
"""Baselines that say something of the test set, whatever the model."""


class CompositionConfig(PairScoringConfig):
    """Settings of the composition eval."""

    ties: Literal["share", "wrong", "right"] = "share"
    """What a right caption is worth that ties with m wrong ones: 1 / (1 + m); nothing, as in SugarCrepe and in ARO's
    relations and attributes; or all, as where the first of equal scores is taken (ARO's order, clip_benchmark)."""
    min_group: int = Field(1, ge=1)
    """Groups (meta `group`: a relation, a pair of attributes) of fewer items are left out of a test's mean over groups;
    ARO's attributes: 25."""
    without_groups: tuple[str, ...] = ()
    """Groups that are left out of it by name, such as relations that read the same both ways."""
    train: str = ""
    """A packed dataset whose train captions the baseline of likely words has read; empty: the data's own, else the
    right captions of the other items."""
    batch_size: int = Field(64, ge=1)
    bootstrap: int = Field(1000, ge=100)
    seed: int = 0
    pictures: int = Field(24, ge=0)
    """How many of the worst mistakes go into the report, of every test in turn."""

    quick: ClassVar[Mapping[str, Any] | None] = {"max_items": 900}
    full: ClassVar[Mapping[str, Any] | None] = {"max_items": 3600}

    def build(self) -> "Composition":
        """The eval."""
        return Composition(self)

    def unsuited(self, model: Pretrained, data: Any) -> str:
        """Why not: no scores, or no distractors in the meta of the first records."""
        found = any(distractors_of(data.meta(p)) and data.captions(p) for p in range(min(8, len(data))))
        return super().unsuited(model, data) or ("" if found else "no distractors in the meta of its records")


class Composition(Eval):
    """How often the right caption scores above all wrong ones: the mean over tests, and each test.

    Chance is 1 / (captions to choose from). Intervals are over images, or over sets where records name theirs. Blind
    baselines: the same model before a blank image; log p(text) of a model that writes; the words that are likely in
    captions, and those that tell right captions from wrong ones (`evals/text_only.py`). `gain_over_blind` is the paired
    difference to the best of them.
    """

    needs: ClassVar[tuple[str, ...]] = ("score",)
    headline: ClassVar[str] = "accuracy"

    def __init__(self, config: CompositionConfig) -> None:
        self.config = config

    def run(self, model: Pretrained, data: Any, artifacts: bool = True) -> EvalResult:
        """Evaluate `model` on the split `data`, whose records' meta must hold `distractors`."""
        config = self.config
        items, without = read_items(data, config.max_items)
        if not items:
            raise EvalError(
                f"composition must be given records with captions, and wrong ones as a list `distractors` in their "
                f"meta; got {without} in {data.name} without. Make some with: diptych corpus get scene_tests"
            )
        scoring = choose_scoring(model, config, "composition")
        reader = ImageReader(data, model.model.config.image_format, config.batch_size)
        scored = score_items(model, reader, items, scoring, "composition")
        judged = Judged(scored, config, *self._priors(scored, data))
        settings = {
            "items": len(scored.items),
            "images": len({i.place for i in scored.items}),
            "clusters": len(np.unique(scored.clusters)),
            "tests": judged.tests,
            "records_without_distractors": without,
            "broken_images": describe_broken(reader),
            "scored_by": scoring.by,
            "likely_words_from": judged.source,
            "best_blind": judged.best_blind,
            "solvable_blind": judged.solvable_blind(),
        }
        return config.result(
            model,
            data,
            metrics=judged.metrics(),
            settings=settings,
            items=judged.items(data) if artifacts else {},
            figures=composition_figures(judged, data, config.pictures) if artifacts else (),
            artifacts={"by_test": judged.by_test()} if artifacts else {},
        )

    def _priors(self, scored: Scored, data: Any) -> tuple[LikelyWords, TellingWords, str]:
        """The baselines that need no model, and what the likely words were read in."""
        choices = [Choice(i.texts, int(c)) for i, c in zip(scored.items, scored.clusters, strict=True)]
        train, source = self._train(data)
        likely = LikelyWords(
            choices, [c[0] for p in choose_places(train, CAPTIONS) if (c := train.captions(p))] if train else []
        )
        return likely, TellingWords(choices), source if likely.given else "the right captions of the other items"

    def _train(self, data: Any) -> tuple[Any, str]:
        """The split to read captions in, and its name; None where there is none."""
        folder = self.config.train or dataset_folder(self.config.data, data)
        if not folder or not (self.config.train or data.name != "train"):
            return None, ""
        opened = open_data(folder)
        if "train" not in opened.splits and not self.config.train:
            return None, ""
        return opened.split("train"), f"the train split of {folder}"


class Judged:
    """What is right of every item: by the model (`right`), and by each blind baseline (`blind`)."""

    def __init__(
        self, scored: Scored, config: CompositionConfig, likely: LikelyWords, telling: TellingWords, source: str
    ) -> None:
        self.scored, self.config, self.source = scored, config, source
        self.clusters = scored.clusters
        names = [i.test for i in scored.items]
        self.tests = sorted(set(names))
        self.test_of = np.array([self.tests.index(n) for n in names])
        self.chance = np.array([i.chance for i in scored.items])
        self.right = hits(scored.image, config.ties)
        self.margin = margins(scored.image)
        self.blind = {"blank": hits(scored.blank, "share")}
        if scored.prior is not None:
            self.blind["prior"] = hits(scored.prior, "share")
        of_words: tuple[LikelyWords | TellingWords, ...] = (likely, telling)
        for name, baseline in zip(MODEL_FREE, of_words, strict=True):
            scores = padded([baseline.scores(n) for n in range(len(scored.items))])
            self.blind[name] = hits(scores, "share")
        weights = macro_weights(self.test_of)
        self.best_blind = max(self.blind, key=lambda name: float((weights * self.blind[name]).mean()))
        self.how = {"samples": config.bootstrap, "seed": config.seed}

    def macro(self, values: Float64[np.ndarray, " n"]) -> Estimate:
        """The mean over tests."""
        chance = float(np.mean([self.chance[rows].mean() for rows in self.rows().values()]))
        return macro_estimate(values, self.test_of, self.clusters, chance, **self.how)

    def gain(self) -> Estimate:
        """By how much the mean over tests exceeds that of the best blind baseline, item by item."""
        weights = macro_weights(self.test_of)
        test = paired_difference(weights * self.right, weights * self.blind[self.best_blind], self.clusters)
        return Estimate(value=test.difference, low=test.low, high=test.high, chance=0.0, n=test.n)

    def metrics(self) -> dict[str, Estimate]:
        """All numbers of the eval."""
        metrics = {"accuracy": self.macro(self.right)}
        metrics |= {f"accuracy_{name}": self.macro(values) for name, values in self.blind.items()}
        metrics["gain_over_blind"] = self.gain()
        if len(self.tests) > 1:
            chance = float(self.chance.mean())
            metrics["accuracy_all_items"] = mean_estimate(self.right, self.clusters, chance, **self.how)
            metrics |= {f"accuracy_{spelled(n)}": self.of(self.right, rows) for n, rows in self.rows().items()}
        for name, rows in self.rows().items():
            if (found := self._over_groups(rows)) is not None:
                metrics[f"accuracy_{spelled(name)}_over_groups"] = found
        if (sets := self._whole_sets()) is not None:
            metrics["sets_right"] = sets
        return metrics

    def rows(self) -> dict[str, Int64[np.ndarray, " m"]]:
        """Which items belong to each test."""
        return {name: np.flatnonzero(self.test_of == t) for t, name in enumerate(self.tests)}

    def of(self, values: Float64[np.ndarray, " n"], rows: Int64[np.ndarray, " m"]) -> Estimate:
        """The mean over some items."""
        return mean_estimate(values[rows], self.clusters[rows], float(self.chance[rows].mean()), **self.how)

    def by_test(self) -> list[dict[str, Any]]:
        """Each test: the model, every blind baseline, and the paired test against the best of them there."""
        found, tests = [], {}
        for name, rows in self.rows().items():
            blind = {b: self.of(values, rows) for b, values in self.blind.items()}
            best = max(blind, key=lambda b, of=blind: of[b].value)
            tests[name] = paired_difference(self.right[rows], self.blind[best][rows], self.clusters[rows])
            found.append(
                {
                    "test": name,
                    "accuracy": to_dict(self.of(self.right, rows)),
                    "blind": {b: to_dict(e) for b, e in blind.items()},
                    "best_blind": best,
                }
            )
        adjusted = holm({name: t.p_value for name, t in tests.items()})
        for row in found:
            test = tests[row["test"]]
            row["against_blind"] = paired_values(test, test.verdict(p_value=adjusted[row["test"]]))
        return found

    def solvable_blind(self) -> dict[str, list[str]]:
        """The tests that can be solved above chance without a model, and by which baselines; Holm over all of them."""
        tests: dict[str, PairedTest] = {}
        for name, rows in self.rows().items():
            for b in MODEL_FREE:
                tests[f"{name}\0{b}"] = paired_difference(self.blind[b][rows], self.chance[rows], self.clusters[rows])
        adjusted = holm({key: t.p_value for key, t in tests.items()})
        found: dict[str, list[str]] = {}
        for key, test in tests.items():
            if test.verdict(p_value=adjusted[key]) == "better":
                name, b = key.split("\0")
                found.setdefault(name, []).append(b)
        return found

    def items(self, split: Any) -> dict[str, ItemTable]:
        """What each item brought: to the means over tests, and to each test."""
        keys = np.array(numbered([split.uid(i.place) for i in self.scored.items]))
        weights = macro_weights(self.test_of)
        values = {"accuracy": weights * self.right}
        values |= {f"accuracy_{name}": weights * of for name, of in self.blind.items() if name not in MODEL_FREE}
        values["gain_over_blind"] = weights * (self.right - self.blind[self.best_blind])
        if len(self.tests) == 1:
            return {"items": item_table(keys.tolist(), values, self.clusters)}
        tables = {"items": item_table(keys.tolist(), values | {"accuracy_all_items": self.right}, self.clusters)}
        for name, rows in self.rows().items():
            mine = {f"accuracy_{spelled(name)}": self.right[rows]}
            tables[f"items_{spelled(name)}"] = item_table(keys[rows].tolist(), mine, self.clusters[rows])
        return tables

    def worst(self) -> list[tuple[int, Item]]:
        """The items that the model has wrong, of every test in turn, the clearest mistakes first."""
        queues = []
        for rows in self.rows().values():
            wrong = rows[self.right[rows] < 1]
            queues.append(wrong[np.argsort(self.margin[wrong], kind="stable")].tolist())
        found = []
        for turn in range(max(map(len, queues), default=0)):
            found += [(q[turn], self.scored.items[q[turn]]) for q in queues if turn < len(q)]
        return found

    def _over_groups(self, rows: Int64[np.ndarray, " m"]) -> Estimate | None:
        """The mean over the groups of a test; None where its items name none."""
        names = np.array([self.scored.items[r].group for r in rows.tolist()])
        sizes = dict(zip(*np.unique(names, return_counts=True), strict=True))
        kept = [g for g, n in sizes.items() if g and n >= self.config.min_group and g not in self.config.without_groups]
        if not kept:
            return None
        mine = rows[np.isin(names, kept)]
        groups = np.unique(np.array([self.scored.items[r].group for r in mine.tolist()]), return_inverse=True)[1]
        chance = float((macro_weights(groups) * self.chance[mine]).mean())
        return macro_estimate(self.right[mine], groups, self.clusters[mine], chance, **self.how)

    def _whole_sets(self) -> Estimate | None:
        """The share of sets all of whose items are right; None where records name no sets of more than one."""
        members: dict[Any, list[int]] = {}
        for n, item in enumerate(self.scored.items):
            if item.set is not None:
                members.setdefault(item.set, []).append(n)
        sets = [rows for rows in members.values() if len(rows) > 1]
        if not sets:
            return None
        right = np.array([float((self.right[rows] == 1).all()) for rows in sets])
        chance = float(np.mean([self.chance[rows].prod() for rows in sets]))
        return mean_estimate(right, None, chance, **self.how)


def spelled(name: str) -> str:
    """A test's name as a metric's: letters, digits and _."""
    return re.sub(r"\W+", "_", name.lower()).strip("_") or "test"
