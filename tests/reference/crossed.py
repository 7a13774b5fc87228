"""The variance of a difference between groups of runs, by resampling: seeds and items are drawn anew, with a loop."""

import numpy as np


def resampled(a: np.ndarray, b: np.ndarray, clusters: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """Differences of means (samples,) of resampled runs on resampled clusters: Owen's pigeonhole bootstrap."""
    rng = np.random.default_rng(seed)
    names = np.unique(clusters)
    members = {c: np.flatnonzero(clusters == c) for c in names.tolist()}
    found = []
    for _ in range(samples):
        items = np.concatenate([members[c] for c in rng.choice(names, len(names)).tolist()])
        runs_a, runs_b = rng.integers(0, len(a), len(a)), rng.integers(0, len(b), len(b))
        found.append(a[runs_a][:, items].mean() - b[runs_b][:, items].mean())
    return np.array(found)
