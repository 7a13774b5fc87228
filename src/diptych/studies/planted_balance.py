"""What balancing does to rare concepts: MetaCLIP's filter beside a random sample of as many records.

A concept is an entry of the filter `balance`: here a word that at least `min_count` records of the pool hold. One that
at most t hold is of the tail (the filter keeps all its records), the others are of the head.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diptych.data.candidates import CandidatePool
from diptych.data.curate import CurationConfig, curate
from diptych.data.executors.executor import Executor
from diptych.data.filters.balance import Balance, BalanceConfig
from diptych.data.selection import Selection, uids_of
from diptych.evals.intervals import student_quantile


class Concepts:
    """The concepts of a pool: how many records hold each, and which ones each record holds."""

    def __init__(self, pool: Path, config: BalanceConfig) -> None:
        opened, self.config, self._filter = CandidatePool(pool), config, Balance(config)
        self.of: dict[str, frozenset[str]] = {}
        for shard in opened.shards:
            rows = opened.rows(shard)
            for uid, captions in zip(rows.table["uid"].to_pylist(), rows.captions, strict=True):
                self.of[uid] = self.held(captions)
        counts = Counter(concept for held in self.of.values() for concept in held)
        self.counts = {concept: n for concept, n in counts.items() if n >= config.min_count}

    def held(self, captions: Sequence[str]) -> frozenset[str]:
        """The words of captions that can be concepts."""
        return frozenset(self._filter.matched(captions))

    def kind(self, captions: Sequence[str]) -> str:
        """ "tail" where captions hold a concept of the tail, "head" where they hold those of the head alone, "" where
        they hold none of the pool's."""
        found = [self.counts[concept] for concept in self.held(captions) if concept in self.counts]
        if not found:
            return ""
        return "tail" if min(found) <= self.config.t else "head"

    def described(self, uids: Sequence[str], at_least: Sequence[int]) -> dict[str, float]:
        """Of a set of records: the share that hold a concept of the tail, and of the head; how many concepts n of them
        hold at least ("n or more"); and the evenness, the number of equally common concepts that would be as hard to
        guess (the exponential of the entropy)."""
        held = [[c for c in self.of[uid] if c in self.counts] for uid in uids]
        counts = Counter(concept for some in held for concept in some)
        shares = np.array(list(counts.values())) / max(sum(counts.values()), 1)
        t = self.config.t
        return {
            "tail records": float(np.mean([any(self.counts[c] <= t for c in some) for some in held])),
            "head records": float(np.mean([any(self.counts[c] > t for c in some) for some in held])),
            "evenness": float(np.exp(-(shares * np.log(shares)).sum())),
            **{f"{n} or more": float(sum(c >= n for c in counts.values())) for n in at_least},
        }


def balanced_and_random(pool: Path, config: BalanceConfig, out: Path, workers: Executor) -> tuple[Selection, Selection]:
    """What the filter keeps of a pool, and as many of its records by lot, with the same seed."""
    folder = out / f"balance-{config.seed}"
    curate(pool, CurationConfig(filters=(config,)), folder, workers)
    kept = Selection.load(folder)
    opened = CandidatePool(pool)
    everything = Selection(np.concatenate([opened.rows(shard).uids for shard in opened.shards]))
    return kept, everything.sample(len(kept), config.seed)


def balance_effect(
    pool: Path, config: BalanceConfig, draws: int, at_least: Sequence[int], out: Path, workers: Executor
) -> dict[str, Any]:
    """The whole pool, and the means over `draws` seeds of balanced and random sets of equal size: by measure the mean,
    and of the difference (balanced less random, seed by seed) the mean and its 95 % interval (Student's, over seeds).
    """
    concepts = Concepts(pool, config)
    found: dict[str, list[dict[str, float]]] = {"balanced": [], "random": []}
    sizes = []
    for seed in range(draws):
        both = balanced_and_random(pool, config.replace(seed=seed), out, workers)
        sizes.append(len(both[0]))
        for name, chosen in zip(found, both, strict=True):
            found[name].append(concepts.described(sorted(_hex(chosen)), at_least))
    whole = concepts.described(list(concepts.of), at_least)
    rows = {}
    for measure, value in whole.items():
        balanced, random = (np.array([of[measure] for of in found[name]]) for name in ("balanced", "random"))
        difference = balanced - random
        half = student_quantile(draws - 1) * float(difference.std(ddof=1)) / draws**0.5
        mean = float(difference.mean())
        rows[measure] = {
            "pool": value,
            "balanced": float(balanced.mean()),
            "random": float(random.mean()),
            "difference": mean,
            "low": mean - half,
            "high": mean + half,
        }
    tail = sum(n <= config.t for n in concepts.counts.values())
    return {
        "records": len(concepts.of),
        "kept": float(np.mean(sizes)),
        "draws": draws,
        "concepts": len(concepts.counts),
        "tail_concepts": tail,
        "measures": rows,
    }


def _hex(selection: Selection) -> list[str]:
    return [uid.tobytes().hex() for uid in uids_of(selection.pairs)]
