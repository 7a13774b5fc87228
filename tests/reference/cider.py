"""CIDEr-D by its definition, n after n, with numpy vectors over all n-grams: the plain twin of evals/cider.py."""

import numpy as np

from diptych.evals.caption_words import caption_words


def plain_cider(captions: list[str], references: list[list[str]], image: int) -> float:
    """10 times the mean over n = 1..4 and over the image's references of clipped cosine times length penalty."""
    total = []
    for n in range(1, 5):
        grams = sorted(
            {g for texts in references for t in texts for g in _grams(t, n)} | set(_grams(captions[image], n))
        )
        if not grams:
            total.append(0.0)
            continue
        seen = np.array([sum(any(g in _grams(t, n) for t in texts) for texts in references) for g in grams])
        idf = np.log(len(references)) - np.log(np.maximum(1, seen))
        said = idf * [_grams(captions[image], n).count(g) for g in grams]
        values = []
        for text in references[image]:
            true = idf * [_grams(text, n).count(g) for g in grams]
            size = np.linalg.norm(said) * np.linalg.norm(true)
            away = len(caption_words(captions[image])) - len(caption_words(text))
            values.append(np.exp(-(away**2) / 72) * (np.minimum(said, true) @ true) / size if size else 0.0)
        total.append(float(np.mean(values)))
    return 10 * float(np.mean(total))


def _grams(text: str, n: int) -> list[tuple[str, ...]]:
    words = caption_words(text)
    return [words[i : i + n] for i in range(len(words) - n + 1)]
