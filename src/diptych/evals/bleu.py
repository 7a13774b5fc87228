"""BLEU over a whole set: the share of a set of captions' n-grams that the references hold too, with its interval.

Papineni et al., "BLEU: a method for automatic evaluation of machine translation", 2002. As COCO's scorer does it: the
counts of all captions are added up before they are divided, and the reference closest in length counts for brevity
(the shorter of two that are equally close). COCO's scorer adds 1e-15 above and 1e-9 below each line, so as not to
divide by zero; here nothing is added, and what matches nowhere is 0: values differ by less than 1e-8, or where not one
n-gram of a length matches in the whole set.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int

from diptych.evals.caption_words import caption_words
from diptych.evals.eval import Estimate
from diptych.evals.sums import Resampling, sums_estimate

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


def bleu_of(sums: Float64[np.ndarray, "s 10"], n: int = N) -> Float64[np.ndarray, " s"]:
    """BLEU-n (0 to 1) of sums of such rows: the geometric mean of the first n precisions, times the brevity penalty."""
    matched, given, said, wanted = sums[:, :n], sums[:, N : N + n], sums[:, 2 * N], sums[:, 2 * N + 1]
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
    n: int = N,
) -> Estimate:
    """BLEU-n of the set with its percentile interval, resampling clusters (images). Where no draw differs, Wilson's."""
    return sums_estimate(counts, lambda sums: bleu_of(sums, n), clusters, chance, Resampling(samples, seed, "bleu"))


def _grams(words: tuple[str, ...], n: int) -> Counter[tuple[str, ...]]:
    return Counter(words[i : i + n] for i in range(len(words) - n + 1))
