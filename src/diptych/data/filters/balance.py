"""Fewer of what is common, all of what is rare: MetaCLIP's balancing (Xu et al., 2024, arXiv:2309.16671, section 3).

Captions are matched against a list of entries; of an entry that t captions hold all are kept, of one that c > t hold
each with the chance t / c. A pair stays if any of its entries keeps it. The draw is a hash of the pair's uid, so
neither the order nor the shards change it (the authors' code draws anew each time, and keeps a pair twice that has two
texts).
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Bool
from numpy import ndarray
from pydantic import Field

from diptych.core.errors import ConfigError
from diptych.core.seeds import fold
from diptych.data.candidates import CandidatePool, Rows
from diptych.data.filters.filter import Filter, FilterConfig

SPACED = str.maketrans({**{c: f" {c} " for c in ",.;:?!`"}, **dict.fromkeys("\t\n\r", " ")})
"""The authors' marks that are set apart, and blanks that become spaces."""


class BalanceConfig(FilterConfig):
    """What is balanced and how far.

    entries    a text file with an entry a line (MetaCLIP: 500,000 from WordNet and Wikipedia); empty: the single words
               of the pool's captions that at least `min_count` of them hold
    t          how many captions of an entry are kept whole; MetaCLIP: 20,000 for 400 M pairs
    unmatched  what becomes of a caption that holds no entry
    lower      whether captions and entries are compared in lower case
    seed       of the draws
    """

    entries: str = ""
    t: int = Field(default=20, ge=1)
    min_count: int = Field(default=2, ge=1)
    unmatched: Literal["drop", "keep"] = "drop"
    lower: bool = True
    seed: int = 0

    def build(self) -> "Balance":
        """The filter."""
        return Balance(self)


class Balance(Filter):
    """Reasons: unmatched, balanced_out. A pair has the entries of all its captions together."""

    gathers: ClassVar[bool] = True

    def __init__(self, config: BalanceConfig) -> None:
        self.config = config
        self._entries: frozenset[str] | None = None
        self._longest = 1
        if config.entries:
            self._entries, self._longest = _read_entries(config)
        self._chance: dict[str, float] = {}

    def gather(self, rows: Rows, alive: Bool[ndarray, " n"]) -> Any:
        """How many of the pairs that are left hold each entry."""
        counts: Counter[str] = Counter()
        for captions in (c for c, a in zip(rows.captions, alive.tolist(), strict=True) if a):
            counts.update(self.matched(captions))
        return dict(counts)

    def settle(self, gathered: Iterator[Any], pool: CandidatePool, folder: Path) -> None:
        """The chance by which each entry keeps a pair."""
        counts: Counter[str] = Counter()
        for part in gathered:
            counts.update(part)
        least = 1 if self._entries is not None else self.config.min_count
        t = self.config.t
        self._chance = {entry: t / max(count, t) for entry, count in counts.items() if count >= least}

    def reasons(self, rows: Rows, alive: Bool[ndarray, " n"]) -> list[str]:
        """By each pair's draw."""
        return [self._of(u.tobytes().hex(), c) for u, c in zip(rows.uids, rows.captions, strict=True)]

    def chance(self, captions: Iterable[str]) -> float | None:
        """1 - prod (1 - t / max(count, t)) over a pair's entries, by which it stays; None where it has none."""
        chances = [self._chance[e] for e in self.matched(captions) if e in self._chance]
        return float(1 - np.prod([1 - p for p in chances])) if chances else None

    def _of(self, uid: str, captions: list[str]) -> str:
        chance = self.chance(captions)
        if chance is None:
            return "unmatched" if self.config.unmatched == "drop" else ""
        draw = fold(self.config.seed, "balance", uid) / 2**63
        return "" if draw < chance else "balanced_out"

    def matched(self, captions: Iterable[str]) -> set[str]:
        """The entries that captions hold, whole words side by side; without a list of entries every word."""
        found: set[str] = set()
        for caption in captions:
            words = spaced(caption, self.config.lower).split()
            if self._entries is None:
                found.update(w for w in words if any(c.isalnum() for c in w))
                continue
            for n in range(1, self._longest + 1):
                found.update(e for i in range(len(words) - n + 1) if (e := " ".join(words[i : i + n])) in self._entries)
        return found


def spaced(text: str, lower: bool) -> str:
    """A text with its marks set apart, as entries are looked for in it."""
    return (text.lower() if lower else text).translate(SPACED)


def _read_entries(config: BalanceConfig) -> tuple[frozenset[str], int]:
    try:
        lines = Path(config.entries).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"BalanceConfig.entries must be a text file with an entry a line; got {config.entries} ({error})."
        ) from None
    entries = frozenset(" ".join(spaced(line, config.lower).split()) for line in lines) - {""}
    if not entries:
        raise ConfigError(f"BalanceConfig.entries must hold entries; {config.entries} is empty.")
    return entries, max(e.count(" ") + 1 for e in entries)
