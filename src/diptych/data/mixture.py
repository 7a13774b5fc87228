"""Several datasets sampled by weight as one, in an order that is computed and not remembered.

A period of 10,000 samples gives each part as many slots as its weight says (largest remainder); which samples of a
period have which slots is a keyed permutation. So the n-th sample's part, and how many samples that part had before,
are a pure function of (seed, n): for any workers and ranks, and after any restart. Within its own samples each part
goes through epochs of its own, in which every record comes once.
"""

import os
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from numpy import ndarray
from pydantic import Field

from diptych.core.config import Config
from diptych.core.errors import ConfigError, DataError
from diptych.core.seeds import fold, permutes
from diptych.data.dataset import Dataset, Split
from diptych.data.samples import Order
from diptych.data.selection import Selection

PERIOD = 10_000


class Part(Config):
    """A dataset of a mixture: samples come from its `split` in proportion to `weight`, whatever its size. `selection`:
    a curated folder or a .npy of uids, which of its records there are; empty: all."""

    path: str
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    split: str = "train"
    selection: str = ""

    def of(self, data: Dataset) -> Split:
        """What of an opened dataset the part is."""
        found = data.split(self.split)
        return found.selected(Selection.load(self.selection)) if self.selection else found


class Mixture(Split):
    """The records of several splits, one after another, with the weight of each."""

    def __init__(self, name: str, splits: Sequence[tuple[str, float, Split]]) -> None:
        self._hold(name, [reader for _, _, split in splits for reader in split._readers])
        self._chosen = _all_chosen([split for _, _, split in splits])
        self.labels = tuple(label for label, _, _ in splits)
        ends = np.cumsum([0, *(len(split) for _, _, split in splits)]).tolist()
        total = sum(weight for _, weight, _ in splits)
        weights = [weight / total for _, weight, _ in splits]
        self._parts = tuple(zip(weights, ends[:-1], ends[1:], strict=True))
        for label, weight, split in splits:
            if len(split) == 0:
                raise DataError(f"each part of a mixture must hold records; got none in {label}. Leave it out.")
            if weight * PERIOD < total:
                raise ConfigError(
                    f"the weight of a part must be at least 1 in {PERIOD:,} of all; got {weight / total:.2g} for "
                    f"{label}. Raise it, or leave the part out."
                )

    @property
    def parts(self) -> tuple[tuple[float, int, int], ...]:
        """(share of the samples, first record, end) of each part."""
        return self._parts

    def key(self, i: int) -> str:
        """The member key of record i, behind the name of its part: keys of two parts may be alike."""
        part = next(n for n, (_, _, end) in enumerate(self._parts) if i < end)
        return f"{self.labels[part]}:{super().key(i)}"

    def describe(self, samples: int) -> str:
        """What it is mixed of, and how often a run of so many samples sees each part, in words."""
        said = []
        for label, (share, start, end) in zip(self.labels, self._parts, strict=True):
            epochs = samples * share / (end - start)
            said.append(f"{label} {share:.1%} ({end - start:,} records, {epochs:.1f} times)")
        return ", ".join(said)


class Mixed(Order):
    """The order of a mixture: which part each sample is from, and in that part's own order, which record."""

    def __init__(self, parts: Sequence[tuple[float, int, Order]], seed: int) -> None:
        self._starts = [start for _, start, _ in parts]
        self._orders = [order for _, _, order in parts]
        self.size, self._seed = sum(order.size for order in self._orders), seed
        self._slots = slots([weight for weight, _, _ in parts])
        self._ends = np.cumsum(self._slots)

    def places(
        self, turns: Int64[ndarray, " b"], samples: Int64[ndarray, " b"], further: int = 0
    ) -> Int64[ndarray, " b"]:
        """The record of each sample; one that cannot be read is replaced out of its own part."""
        found = np.empty(len(turns), dtype=np.int64)
        periods = turns // PERIOD
        slot = np.empty(len(turns), dtype=np.int64)
        for period in np.unique(periods).tolist():
            here = periods == period
            slot[here] = permutes(turns[here] % PERIOD, PERIOD, self._seed, "mixture", period)
        which = np.searchsorted(self._ends, slot, side="right")
        for part, order in enumerate(self._orders):
            here = which == part
            if here.any():
                mine = periods[here] * self._slots[part] + slot[here] - (self._ends[part] - self._slots[part])
                found[here] = self._starts[part] + order.places(mine, samples[here], further)
        return found


def slots(weights: Sequence[float]) -> Int64[ndarray, " p"]:
    """How many of a period's samples each part has: its share rounded down, the rest to the largest remainders."""
    exact = np.array(weights, dtype=np.float64) / sum(weights) * PERIOD
    whole = np.floor(exact).astype(np.int64)
    most = np.argsort(whole - exact, kind="stable")[: PERIOD - int(whole.sum())]
    whole[most] += 1
    return whole


def _all_chosen(splits: Sequence[Split]) -> Int64[ndarray, " n"] | None:
    """Which records of all tars, one after another, were selected of each split; None: all."""
    if all(split._chosen is None for split in splits):
        return None
    sizes = [int(split._starts[-1]) for split in splits]
    firsts = np.cumsum([0, *sizes[:-1]])
    each = [np.arange(n) if s._chosen is None else s._chosen for s, n in zip(splits, sizes, strict=True)]
    return np.concatenate([first + chosen for first, chosen in zip(firsts, each, strict=True)])


def open_datasets(
    paths: Sequence[str | os.PathLike[str]], parts: Sequence[Part], split: str, selection: str = ""
) -> Dataset:
    """The run's dataset: the one in paths[0], whose split called `split` is, where there are parts, the mixture of
    those in paths[1:]. Its tokenizer and its other splits remain; its fingerprint is one over all and their weights.

    `selection`: which records of that split there are, where there are no parts; each part has its own.
    """
    home = Dataset.open(paths[0])
    if parts and selection:
        raise ConfigError(
            f"data.selection must be empty where there is a mixture, each part of which has its own; got {selection}. "
            "Set data.mixture.N.selection."
        )
    if not parts and selection:
        chosen = Selection.load(selection)
        found = home.split(split).selected(chosen)
        mark = blake2b(f"{home.fingerprint}\0{found.selection_hash}".encode(), digest_size=16).hexdigest()
        return Dataset(home.path, {**home.info, "fingerprint": mark}, {**home.splits, split: found})
    if not parts:
        return home
    opened = [Dataset.open(path) for path in paths[1:]]
    labels = _labels([data.path for data in opened])
    mixed = Mixture(
        split,
        [(label, part.weight, part.of(data)) for label, part, data in zip(labels, parts, opened, strict=True)],
    )
    h = blake2b(home.fingerprint.encode(), digest_size=16)
    for part, data in zip(parts, opened, strict=True):
        h.update(f"{data.fingerprint}\0{part.split}\0{part.weight!r}\0".encode())
        h.update(part.of(data).selection_hash.encode())
    info = {**home.info, "fingerprint": h.hexdigest(), "mixture": [f"{p.path}:{p.split}" for p in parts]}
    return Dataset(home.path, info, {**home.splits, split: mixed})


def _labels(paths: Sequence[Path]) -> list[str]:
    """The folders' names, numbered where two are alike."""
    names = [path.name for path in paths]
    return [name if names.count(name) == 1 else f"{name} {i + 1}" for i, name in enumerate(names)]


def part_seed(seed: int, part: int) -> int:
    """The seed of a part's own epochs: parts of one size do not go in step."""
    return fold(seed, "part", part)
