"""What is made of the facts of a split's captions: shares of true claims, chance, and the test against blindness."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from diptych.evals.eval import Estimate
from diptych.evals.scene_facts import FACTS, Verdict, judge
from diptych.evals.scoring import paired_values
from diptych.evals.statistics import compare, holm, mean_estimate, paired_difference, share_estimate
from diptych.evals.written import Written


class SceneFacts:
    """The facts of all captions of a split of scenes. Every caption counts: what cannot be read is false."""

    def __init__(
        self,
        meta: Sequence[Mapping[str, Any]],
        written: Written,
        deals: Sequence[Int64[np.ndarray, " n"]],
        samples: int = 1000,
        seed: int = 0,
    ) -> None:
        self.meta, self.written, self.samples, self.seed = meta, written, samples, seed
        self.fullest = [texts[0] for texts in written.references]
        self.said = self._judged(written.captions)
        self.dealt = [self._judged([written.captions[i] for i in deal.tolist()]) for deal in deals]
        self.blind = None if written.blank is None else self._judged([written.blank] * len(meta))

    def metrics(self) -> dict[str, Estimate]:
        """For each fact the share of the captions' claims that are true; of the scenes' things, the share that is
        named; the share of captions that are wholly right; and that of captions that could be read at all."""
        how = {"samples": self.samples, "seed": self.seed}
        clusters, metrics = self.written.clusters, dict[str, Estimate]()
        for fact in FACTS:
            hits, owners = _claims(self.said, fact)
            if len(hits):
                chance = float(np.mean([_share(d, fact) for d in self.dealt]))
                metrics[f"{fact}_accuracy"] = mean_estimate(hits, clusters[owners], chance, **how)
        for name, values in per_image(self.said).items():
            if name in ("all_facts_accuracy", "named_recall"):
                chance = float(np.mean([per_image(d)[name].mean() for d in self.dealt]))
                metrics[name] = mean_estimate(values, clusters, chance, **how)
        metrics["parsed_share"] = share_estimate(np.array([v.parsed for v in self.said]), clusters, **how)
        if self.blind is not None:
            mine, blind = (per_image(v)["all_facts_accuracy"] for v in (self.said, self.blind))
            metrics["blind_all_facts_accuracy"] = share_estimate(blind, clusters, **how)
            test = paired_difference(mine, blind, clusters, seed=self.seed)
            metrics["all_facts_gain_over_blind"] = Estimate(
                value=test.difference, low=test.low, high=test.high, chance=0.0, n=test.n
            )
        return metrics

    def values(self) -> dict[str, Float64[np.ndarray, " n"]]:
        """What each image brought to the metrics that are means over images (a fact's accuracy is one over claims)."""
        mine = per_image(self.said)
        values = {name: mine[name] for name in ("all_facts_accuracy", "named_recall")}
        values["parsed_share"] = np.array([float(v.parsed) for v in self.said])
        if self.blind is not None:
            blind = per_image(self.blind)["all_facts_accuracy"]
            values["blind_all_facts_accuracy"] = blind
            values["all_facts_gain_over_blind"] = mine["all_facts_accuracy"] - blind
        return values

    def tables(self) -> dict[str, Any]:
        """Claims and truths by fact, beside the blind model's and chance; the paired tests; unreadable captions."""
        unread = [c for c, v in zip(self.written.captions, self.said, strict=True) if not v.parsed]
        tables: dict[str, Any] = {
            "facts": [self._row(fact) for fact in FACTS if any(v.claimed[fact] for v in self.said)],
            "unparsed": {"count": len(unread), "first": unread[:12]},
        }
        if self.blind is not None:
            a, b = per_image(self.said), per_image(self.blind)
            tests = compare(a, b, self.written.clusters)
            adjusted = holm({name: test.p_value for name, (test, _) in tests.items()})  # what the verdicts rest on
            tables["facts_against_blind"] = {
                name: {**paired_values(test, verdict), "p_value": adjusted[name]}
                for name, (test, verdict) in tests.items()
            }
        return tables

    def _row(self, fact: str) -> dict[str, Any]:
        row: dict[str, Any] = {
            "fact": fact,
            "claimed": sum(v.claimed[fact] for v in self.said),
            "true": sum(v.true[fact] for v in self.said),
            "chance": float(np.mean([_share(d, fact) for d in self.dealt])),
        }
        if self.blind is not None:
            row["blind"] = _share(self.blind, fact)
        return row

    def _judged(self, captions: Sequence[str]) -> list[Verdict]:
        return [judge(c, m, f) for c, m, f in zip(captions, self.meta, self.fullest, strict=True)]


def per_image(verdicts: Sequence[Verdict]) -> dict[str, Float64[np.ndarray, " n"]]:
    """A value of each image, for paired tests: the share of true claims of objects, colours and counts (0 of a caption
    that cannot be read), whether a relation of the scene is stated, of the things named, and whether all is right."""
    found = {
        f"{fact}_accuracy": [v.true[fact] / v.claimed[fact] if v.claimed[fact] else 0.0 for v in verdicts]
        for fact in ("object", "colour", "count")
    }
    found["relation_stated"] = [float(v.true["relation"] > 0) for v in verdicts]
    found["named_recall"] = [v.named / v.things for v in verdicts]
    found["all_facts_accuracy"] = [float(v.all_right) for v in verdicts]
    return {name: np.array(values, dtype=np.float64) for name, values in found.items()}


def _claims(verdicts: Sequence[Verdict], fact: str) -> tuple[Float64[np.ndarray, " c"], Int64[np.ndarray, " c"]]:
    """Every claim of a fact: 1 or 0, and whose image's it is."""
    claimed = np.array([v.claimed[fact] for v in verdicts], dtype=np.int64)
    true = np.array([v.true[fact] for v in verdicts], dtype=np.int64)
    hits = [np.repeat((1.0, 0.0), (t, c - t)) for t, c in zip(true, claimed, strict=True)]
    return np.concatenate([np.zeros(0), *hits]), np.repeat(np.arange(len(verdicts)), claimed)


def _share(verdicts: Sequence[Verdict], fact: str) -> float:
    """The share of claims of a fact that are true; 0 where there is none."""
    claimed = sum(v.claimed[fact] for v in verdicts)
    return sum(v.true[fact] for v in verdicts) / claimed if claimed else 0.0
