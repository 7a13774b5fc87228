"""Right answers by group: which group fares worst, how far groups lie apart, and how far noise alone would drive them.

The worst of many noisy groups looks bad in any case, and the gap between the best and the worst is never negative.
So both have *simultaneous* intervals (all groups' intervals hold at once), and the gap has a null: the groups' names
dealt out anew among the same images.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int64

from diptych.core.errors import EvalError
from diptych.core.seeds import numpy_generator
from diptych.evals.eval import Estimate
from diptych.evals.intervals import LEVEL, wilson
from diptych.evals.statistics import proportion

USUAL = ("group", "gender", "sex", "race", "ethnicity", "age")
"""Values of the meta that are taken for the group where the settings name none."""

FEW_ITEMS = 30
"""Below so many items a group is warned of: one item moves its share by more than 3 points."""

MOST_GROUPS = 100


class Groups(NamedTuple):
    """The group of some records: names in order, a number for each record (-1: it says none, or a left out one).

    `left_out`: groups of fewer items than asked for, with how many they have.
    """

    field: str
    names: tuple[str, ...]
    of: Int64[np.ndarray, " n"]
    left_out: dict[str, int]
    without: int

    @property
    def sizes(self) -> Int64[np.ndarray, " g"]:
        """How many records each group has."""
        return np.bincount(self.of[self.of >= 0], minlength=len(self.names))


class GroupGap(NamedTuple):
    """The worst group and the distance of the best from it, and what a permutation of the groups' names says.

    `p_gap`: the share of permutations with a gap at least as wide; `p_any`: with groups at least as different in all
    (Pearson's chi-square), which sees a difference in a large group that the noise of a small one hides.
    """

    worst: Estimate
    gap: Estimate
    worst_group: int
    null_high: float
    p_gap: float
    p_any: float


def find_field(metas: Sequence[dict[str, Any]], wanted: str) -> str:
    """The group's field: `wanted`, else the first of USUAL that a record has; "" if there is none."""
    return wanted or next((f for f in USUAL if any(f in m for m in metas)), "")


def read_groups(split: Any, places: Sequence[int], wanted: str, least: int = 1) -> Groups:
    """The groups of the records at `places` by a value of their meta; groups of fewer than `least` are left out."""
    metas = [split.meta(p) for p in places]
    field = find_field(metas, wanted)
    values = [m.get(field) for m in metas]
    odd = next((v for v in values if not (v is None or isinstance(v, (str, int, bool)))), None)
    if odd is not None:
        raise EvalError(
            f"a group must be a text, a whole number or true/false; got {odd!r} as {field!r}. "
            "Name a field with one value an image by group_field."
        )
    counts = dict.fromkeys(sorted({str(v) for v in values if v is not None}), 0)
    for value in values:
        if value is not None:
            counts[str(value)] += 1
    names = tuple(name for name, n in counts.items() if n >= least)
    if not 2 <= len(names) <= MOST_GROUPS:
        has = ", ".join(sorted({key for m in metas for key in m})) or "none"
        raise EvalError(
            f"group_field must name a value of the meta with 2 to {MOST_GROUPS} groups of at least {least} images; "
            f"got {wanted or field or 'none'!r} with {len(names)}. There are: {has}."
        )
    number = {name: i for i, name in enumerate(names)}
    of = np.array([-1 if v is None else number.get(str(v), -1) for v in values])
    left_out = {name: n for name, n in counts.items() if n < least}
    return Groups(field, names, of, left_out, sum(v is None for v in values))


def group_counts(groups: Groups, right: Bool[np.ndarray, " n"]) -> Int64[np.ndarray, " g"]:
    """Hits in each group."""
    return np.bincount(groups.of[right & (groups.of >= 0)], minlength=len(groups.names))


def group_gap(
    hits: Int64[np.ndarray, " g"], sizes: Int64[np.ndarray, " g"], chance: float, permutations: int, seed: int
) -> GroupGap:
    """The worst group's share of hits and the gap from the best to it, of independent items.

    Each group's Wilson interval has the level 0.95^(1/g) (Sidak), so that all hold at once with 95 %: the worst share
    then lies between the least of the lower and the least of the upper ends, whichever group is truly worst, and the
    gap between max(low) - min(high) and max(high) - min(low). Under "no difference" hits are dealt out over the groups
    without regard to them, which is a multivariate hypergeometric draw.
    """
    rates, n = hits / sizes, int(sizes.sum())
    level = LEVEL ** (1 / len(sizes))
    ends = np.array([wilson(int(h), int(s), level) for h, s in zip(hits, sizes, strict=True)])  # (g, 2)
    low, high = ends[:, 0], ends[:, 1]
    worst = Estimate(value=rates.min(), low=low.min(), high=high.min(), chance=chance, n=n)
    drawn = numpy_generator(seed, "group_gap").multivariate_hypergeometric(sizes, int(hits.sum()), permutations)
    null = drawn / sizes  # (p, g)
    gaps = np.ptp(null, axis=1)
    gap = Estimate(
        value=float(np.ptp(rates)),
        low=max(0.0, float(low.max() - high.min())),
        high=float(high.max() - low.min()),
        chance=float(gaps.mean()),
        n=n,
        higher_is_better=False,
    )
    overall = hits.sum() / n
    away, spread = ((rates - overall) ** 2) @ sizes, ((null - overall) ** 2) @ sizes
    slack = 1 - 1e-9
    return GroupGap(
        worst,
        gap,
        int(rates.argmin()),
        float(np.quantile(gaps, LEVEL)),
        float((1 + (gaps >= np.ptp(rates) * slack).sum()) / (1 + permutations)),
        float((1 + (spread >= away * slack).sum()) / (1 + permutations)),
    )


def group_estimates(
    hits: Int64[np.ndarray, " g"], sizes: Int64[np.ndarray, " g"], chance: float, samples: int, seed: int
) -> tuple[Estimate, ...]:
    """Each group's share of hits with an interval of its own (not simultaneous)."""
    return tuple(proportion(int(h), int(s), chance, samples, seed) for h, s in zip(hits, sizes, strict=True))


def share_difference(hits: int, n: int, other_hits: int, other_n: int) -> Estimate:
    """The share of one set of independent items less that of another; chance: no difference.

    Newcombe's hybrid of two Wilson intervals (his method 10: "Interval estimation for the difference between
    independent proportions", 1998). `n` counts the items of the smaller set.
    """
    (low, high), (other_low, other_high) = wilson(hits, n), wilson(other_hits, other_n)
    share, other = hits / n, other_hits / other_n
    below = float(np.hypot(share - low, other_high - other))
    above = float(np.hypot(high - share, other - other_low))
    value = share - other
    return Estimate(value=value, low=value - below, high=value + above, chance=0.0, n=min(n, other_n))
