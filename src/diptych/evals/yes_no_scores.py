"""What answers of yes and no are worth: metrics, what each question brought, and figures."""

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from diptych.core.seeds import numpy_generator
from diptych.evals.eval import Estimate, ItemTable
from diptych.evals.items import item_table, numbered
from diptych.evals.questions import Question
from diptych.evals.scoring import thumbnail
from diptych.evals.statistics import paired_difference, share_estimate
from diptych.evals.sums import Resampling, sums_estimate
from diptych.evals.yes_no import (
    Parser,
    answer_counts,
    balanced_accuracy,
    f1,
    hits_of,
    is_unclear,
    precision,
    read_answer,
    recall,
)
from diptych.report.figures import Figure, Interval, Intervals, Matrix, Picture, Pictures, Words

PARSERS: tuple[Parser, ...] = ("original", "lmms_eval")


class Replies(NamedTuple):
    """Questions, what was said to each (and of a blank image), and which image each is about."""

    asked: list[Question]
    said: list[str]
    blind: list[str] | None
    clusters: Int64[np.ndarray, " q"]


class YesNoScores:
    """Answers as one parser reads them, with the other's accuracy beside."""

    def __init__(self, replies: Replies, parser: Parser, samples: int = 1000, seed: int = 0) -> None:
        self.replies, self.parser, self.samples, self.seed = replies, parser, samples, seed
        self.truth = [q.answer for q in replies.asked]
        self.read = {p: [read_answer(s, p) for s in replies.said] for p in PARSERS}
        self.hits = hits_of(self.read[parser], self.truth)
        self.counts = answer_counts(self.read[parser], self.truth)
        self.unclear = np.array([is_unclear(s) for s in replies.said])
        self.blind = None
        if replies.blind is not None:
            self.blind = hits_of([read_answer(s, parser) for s in replies.blind], self.truth)
        sorts = np.array([q.sort for q in replies.asked])
        self.categories = {c: np.flatnonzero(sorts == c) for c in dict.fromkeys(sorts.tolist()) if c}

    def metrics(self) -> dict[str, Estimate]:
        """Accuracy, F1 and its parts, the share of yes, of what is unclear, the other parser's, blind, by category."""
        every = np.arange(len(self.truth))
        metrics = {"accuracy": self._share(self.hits, every, self._majority(every)), **self._quotients(every)}
        yes = np.array([r == "yes" for r in self.read[self.parser]])
        metrics["yes_share"] = self._share(yes, every, None)
        metrics["unparsed_share"] = self._share(self.unclear, every, None).replace(higher_is_better=False)
        for other in (p for p in PARSERS if p != self.parser):
            hits = hits_of(self.read[other], self.truth)
            metrics[f"{other}_accuracy"] = self._share(hits, every, self._majority(every))
            counts = answer_counts(self.read[other], self.truth)
            metrics[f"{other}_f1"] = self._sums(counts, f1, every, self._always_yes(every))
        if self.blind is not None:
            metrics["blind_accuracy"] = self._share(self.blind, every, self._majority(every))
            test = paired_difference(self.hits, self.blind, self.replies.clusters, seed=self.seed)
            metrics["gain_over_blind"] = Estimate(
                value=test.difference, low=test.low, high=test.high, chance=0.0, n=test.n
            )
        if len(self.categories) > 1:
            for name, rows in self.categories.items():
                metrics[f"accuracy_{_key(name)}"] = self._share(self.hits[rows], rows, self._majority(rows))
                metrics[f"f1_{_key(name)}"] = self._sums(self.counts[rows], f1, rows, self._always_yes(rows))
        return metrics

    def items(self, split: Any) -> dict[str, ItemTable]:
        """What each question brought to the metrics that are means."""
        keys = np.array(numbered([split.uid(q.place) for q in self.replies.asked]))
        yes = np.array([r == "yes" for r in self.read[self.parser]])
        values: dict[str, np.ndarray] = {"accuracy": self.hits, "yes_share": yes, "unparsed_share": self.unclear}
        for other in (p for p in PARSERS if p != self.parser):
            values[f"{other}_accuracy"] = hits_of(self.read[other], self.truth)
        if self.blind is not None:
            values |= {"blind_accuracy": self.blind, "gain_over_blind": self.hits - self.blind.astype(float)}
        tables = {"questions": item_table(keys.tolist(), values, self.replies.clusters)}
        if len(self.categories) > 1:
            for name, rows in self.categories.items():
                hits = {f"accuracy_{_key(name)}": self.hits[rows]}
                tables[f"questions_{_key(name)}"] = item_table(keys[rows].tolist(), hits, self.replies.clusters[rows])
        return tables

    def figures(self, split: Any, pictures: int) -> tuple[Figure, ...]:
        """Accuracy by category, yes and no against the truth, questions most often answered wrongly, pictures."""
        metrics = self.metrics()
        names = [n for n in metrics if n.startswith("accuracy")] + [f"{p}_accuracy" for p in (*PARSERS, "blind")]
        rows = tuple(
            Interval(name=n.replace("_", " "), value=e.value, low=e.low, high=e.high, chance=e.chance, n=e.n)
            for n in names
            if (e := metrics.get(n)) is not None
        )
        sums = self.counts.sum(0)
        table = ((sums[0], sums[3], self._neither("yes")), (sums[1], sums[2], self._neither("no")))
        return (
            Intervals(
                title="Right answers",
                words=f"Whole and by category; answers are read by the {self.parser} parser. The mark is what the more "
                "frequent answer reaches.",
                rows=rows,
            ),
            Matrix(
                title="Yes and no",
                words="Rows: what is true. Columns: what is said.",
                values=tuple(tuple(float(v) for v in row) for row in table),
                row_names=("yes", "no"),
                column_names=("yes", "no", "neither"),
                digits=0,
            ),
            self._by_question(),
            Pictures(title="Wrong answers", pictures=self._pictures(split, pictures)),
        )

    def _by_question(self) -> Words:
        asked = Counter(q.question for q in self.replies.asked)
        wrong: dict[str, Counter[str]] = {"yes": Counter(), "no": Counter()}
        for q, hit in zip(self.replies.asked, self.hits, strict=True):
            if not hit:
                wrong[q.answer][q.question] += 1
        order = sorted(asked, key=lambda t: (-wrong["no"][t], -wrong["yes"][t], t))[:200]
        return Words(
            title="By question",
            words="What is affirmed though it is not there stands first.",
            head=("question", "asked", "wrong where the answer is no", "wrong where it is yes"),
            rows=tuple((t, str(asked[t]), str(wrong["no"][t]), str(wrong["yes"][t])) for t in order),
            numeric=(1, 2, 3),
        )

    def _pictures(self, split: Any, most: int) -> tuple[Picture, ...]:
        wrong = numpy_generator(self.seed, "pope_shown").permutation(np.flatnonzero(~self.hits))
        chosen: dict[int, int] = {}
        for i in wrong.tolist():
            if len(chosen) < most:
                chosen.setdefault(self.replies.asked[i].place, i)
        return tuple(
            Picture(
                image=thumbnail(split, place),
                caption=self.replies.asked[i].question,
                detail=f"{self.replies.said[i] or '(nothing)'}, but it is {self.truth[i]}",
                verdict="wrong",
            )
            for place, i in chosen.items()
        )

    def _quotients(self, rows: Int64[np.ndarray, " r"]) -> dict[str, Estimate]:
        """The metrics that are no means of questions."""
        yes = float(np.mean([t == "yes" for t in self.truth]))
        chances = {
            "f1": (f1, self._always_yes(rows)),
            "precision": (precision, yes),
            "recall": (recall, None),
            "balanced_accuracy": (balanced_accuracy, 0.5),
        }
        return {name: self._sums(self.counts[rows], of, rows, chance) for name, (of, chance) in chances.items()}

    def _sums(self, counts: np.ndarray, of: Any, rows: Int64[np.ndarray, " r"], chance: float | None) -> Estimate:
        how = Resampling(self.samples, self.seed, of.__name__)
        return sums_estimate(counts, of, self.replies.clusters[rows], chance, how)

    def _share(self, hits: np.ndarray, rows: Int64[np.ndarray, " r"], chance: float | None) -> Estimate:
        return share_estimate(hits, self.replies.clusters[rows], chance, self.samples, self.seed)

    def _majority(self, rows: Int64[np.ndarray, " r"]) -> float:
        yes = float(np.mean([self.truth[r] == "yes" for r in rows.tolist()]))
        return max(yes, 1 - yes)

    def _always_yes(self, rows: Int64[np.ndarray, " r"]) -> float:
        yes = float(np.mean([self.truth[r] == "yes" for r in rows.tolist()]))
        return 2 * yes / (1 + yes)

    def _neither(self, truth: str) -> int:
        return sum(r == "" and t == truth for r, t in zip(self.read[self.parser], self.truth, strict=True))


def _key(name: str) -> str:
    return name.replace(" ", "_").replace("/", "_")
