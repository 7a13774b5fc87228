"""BLEU-4 over a whole set: the share of a set of captions' n-grams that the references hold too, with its interval.

Papineni et al., "BLEU: a method for automatic evaluation of machine translation", 2002. As COCO's scorer does it: the
counts of all captions are added up before they are divided, and the reference closest in length counts for brevity
(the shorter of two that are equally close).
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int

from diptych.evals.caption_words import caption_words
from diptych.evals.eval import Estimate
from diptych.evals.statistics import bootstrap_weights, wilson

N = 4


def bleu_counts(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64[np.ndarray, "n 10"]:
    """What each caption adds to the sums: matched 1- to 4-grams, all its 1- to 4-grams, its length, its reference's."""
    rows = []
    for caption, texts in zip(captions, references, strict=True):
        said, others = caption_words(caption), [caption_words(t) for t in texts]
        matched, given = [], []
        for n in range(1, N + 1):
            mine = _grams(said, n)
            most: Counter[tuple[str, ...]] = Counter()
            for other in others:
                most |= _grams(other, n)
            matched.append((mine & most).total())
            given.append(mine.total())
        closest = min((abs(len(o) - len(said)), len(o)) for o in others)[1]
        rows.append([*matched, *given, len(said), closest])
    return np.array(rows, dtype=np.float64).reshape(-1, 2 * N + 2)


def bleu_of(sums: Float64[np.ndarray, "s 10"]) -> Float64[np.ndarray, " s"]:
    """BLEU-4 (0 to 1) of sums of such rows: the geometric mean of the four precisions, times the brevity penalty."""
    matched, given, said, wanted = sums[:, :N], sums[:, N : 2 * N], sums[:, 2 * N], sums[:, 2 * N + 1]
    known = (matched > 0).all(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.exp(np.log(matched / given).mean(1))
        brevity = np.exp(np.minimum(0.0, 1 - wanted / said))
    return np.where(known, precision * brevity, 0.0)


def bleu_estimate(
    counts: Float64[np.ndarray, "n 10"],
    clusters: Int[np.ndarray, " n"],
    chance: float | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """BLEU-4 of the set with its percentile interval, resampling clusters (images). Where no draw differs, Wilson's."""
    label = np.unique(clusters, return_inverse=True)[1]
    of_cluster = np.zeros((label.max() + 1, counts.shape[1]))
    np.add.at(of_cluster, label, counts)
    value = float(bleu_of(counts.sum(0, keepdims=True))[0])
    draws = np.concatenate(
        [bleu_of(weights @ of_cluster) for weights in bootstrap_weights(len(of_cluster), samples, seed, "bleu")]
    )
    low, high = (float(q) for q in np.quantile(draws, (0.025, 0.975)))
    if high - low < 1e-12:
        low, high = wilson(value * len(of_cluster), len(of_cluster))
    return Estimate(value=value, low=min(low, value), high=max(high, value), chance=chance, n=len(of_cluster))


def _grams(words: tuple[str, ...], n: int) -> Counter[tuple[str, ...]]:
    return Counter(words[i : i + n] for i in range(len(words) - n + 1))
