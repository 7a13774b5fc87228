"""CIDEr-D: how much of what people said of an image a caption says too, rare words counting more.

Vedantam et al., "CIDEr: Consensus-based Image Description Evaluation", arXiv:1411.5726, equations 1 to 4 and the "D"
variant of its section 6 (clipping, and a penalty on length), as COCO's scorer computes it.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from diptych.core.errors import EvalError
from diptych.evals.caption_words import caption_words

N = 4
"""n-grams of 1 to 4 words."""
SIGMA = 6.0
"""Width of the penalty on a length other than the reference's, in words."""
SCALE = 10.0
"""A caption that equals an image's only reference scores so much (if it has four words or more)."""

Gram = tuple[str, ...]


class Sentence(NamedTuple):
    """A sentence as one tf-idf vector for each n, with their norms, and its length in words."""

    vectors: list[dict[Gram, float]]
    norms: list[float]
    length: int


class Cider:
    """Scores captions of a fixed set of images, each with one or more references.

    How rare an n-gram is, is counted over these images' references (in how many images' references it occurs), so
    that values of different sets do not compare, and a set of one image scores 0.
    """

    def __init__(self, references: Sequence[Sequence[str]]) -> None:
        if not references or not all(references):
            raise EvalError(
                f"CIDEr must be given at least one reference for each image; got {len(references)} images, "
                f"{sum(not r for r in references)} without. Leave those out."
            )
        grams = [[_grams(text) for text in texts] for texts in references]
        self.seen_in = Counter(g for texts in grams for g in set().union(*(c.keys() for c, _ in texts)))
        self.log_images = math.log(len(references))
        self.references = [[self._sentence(counts, length) for counts, length in texts] for texts in grams]

    def scores(self, captions: Sequence[str]) -> Float64[np.ndarray, " n"]:
        """The value of each image's caption, 0 to 10."""
        if len(captions) != len(self.references):
            raise EvalError(
                f"CIDEr must be given one caption an image; got {len(captions)} for {len(self.references)} images. "
                "Give an empty one where there is none."
            )
        return np.array([self.score(i, caption) for i, caption in enumerate(captions)])

    def score(self, image: int, caption: str) -> float:
        """The value of a caption of one of the images."""
        said = self._sentence(*_grams(caption))
        references = self.references[image]
        return SCALE * sum(_similarity(said, r) for r in references) / len(references)

    def _sentence(self, counts: Counter[Gram], length: int) -> Sentence:
        vectors: list[dict[Gram, float]] = [{} for _ in range(N)]
        for gram, count in counts.items():
            vectors[len(gram) - 1][gram] = count * (self.log_images - math.log(max(1, self.seen_in[gram])))
        return Sentence(vectors, [math.sqrt(sum(v * v for v in vector.values())) for vector in vectors], length)


def _similarity(said: Sentence, reference: Sentence) -> float:
    """The mean over n of the clipped cosine, times the penalty on the difference in length."""
    total = 0.0
    for mine, theirs, a, b in zip(said.vectors, reference.vectors, said.norms, reference.norms, strict=True):
        if a and b:
            total += sum(min(v, theirs[g]) * theirs[g] for g, v in mine.items() if g in theirs) / (a * b)
    return total / N * math.exp(-((said.length - reference.length) ** 2) / (2 * SIGMA**2))


def _grams(text: str) -> tuple[Counter[Gram], int]:
    words = caption_words(text)
    counts = Counter(words[i : i + n] for n in range(1, N + 1) for i in range(len(words) - n + 1))
    return counts, len(words)
