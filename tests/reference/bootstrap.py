"""The bootstrap as the textbook has it: draw clusters with replacement, one resample after the other."""

import numpy as np


def resampled(values: np.ndarray, clusters: np.ndarray, samples: int, seed: int, statistic=np.mean) -> np.ndarray:
    """The statistic of each resample."""
    rng = np.random.default_rng(seed)
    names = np.unique(clusters)
    results = []
    for _ in range(samples):
        drawn = rng.choice(names, size=len(names))
        results.append(statistic(np.concatenate([values[clusters == c] for c in drawn])))
    return np.array(results)
