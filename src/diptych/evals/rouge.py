"""ROUGE-L of captions: how long a sequence of words, not necessarily side by side, a caption shares with a reference.

Lin, "ROUGE: a package for automatic evaluation of summaries", 2004, section 3, as COCO's scorer computes it: precision
and recall are each the best over an image's references, *not necessarily of the same one*, so that a caption can score
above its score beside any single reference; beta is 1.2; and a sentence without words counts as one empty word, which
another empty sentence shares.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from diptych.evals.caption_words import caption_words

BETA = 1.2
"""How much more recall weighs than precision."""


def rouge_scores(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64[np.ndarray, " n"]:
    """ROUGE-L (0 to 1) of each image's caption beside its references."""
    pairs = zip(captions, references, strict=True)
    return np.array([_score(_words(c), [_words(t) for t in texts]) for c, texts in pairs], dtype=np.float64)


def longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest sequence of words that both hold in that order."""
    row = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for j, mine in enumerate(other, 1):
            before, row[j] = row[j], before + 1 if word == mine else max(row[j], row[j - 1])
    return row[-1]


def _score(said: tuple[str, ...], references: Sequence[tuple[str, ...]]) -> float:
    common = [longest_common(said, r) for r in references]
    precision = max(c / len(said) for c in common)
    recall = max(c / len(r) for c, r in zip(common, references, strict=True))
    if not precision or not recall:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _words(text: str) -> tuple[str, ...]:
    return caption_words(text) or ("",)
