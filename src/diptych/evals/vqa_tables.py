"""What the report shows of answered questions: some right and some wrong ones with pictures, and what is confused."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from diptych.core.seeds import numpy_generator
from diptych.evals.questions import Choices, Question, plain
from diptych.evals.scoring import thumbnail

MOST_CLASSES = 60
"""Beyond so many answers there is no matrix of confusions, only a list."""


def vqa_tables(
    split: Any,
    asked: Sequence[Question],
    said: Sequence[str],
    hits: Bool[np.ndarray, " q"],
    confidence: Float64[np.ndarray, " q"] | None,
    choices: Choices,
    pictures: int,
) -> dict[str, Any]:
    """Pictures of right answers (drawn at random) and of the surest wrong ones (no `hits`), and confusions."""
    right, wrong = np.flatnonzero(hits), np.flatnonzero(~hits)
    right = numpy_generator(0, "answers_shown").permutation(right)
    if confidence is not None:
        wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]

    def shown(i: int) -> dict[str, Any]:
        return {
            "uid": split.uid(asked[i].place),
            "thumb": thumbnail(split, asked[i].place),
            "question": asked[i].question,
            "answer": asked[i].answer,
            "said": said[i],
            "confidence": None if confidence is None else round(float(confidence[i]), 4),
            "right": bool(hits[i]),
        }

    return {
        "answers_right": [shown(i) for i in _of_different_images(right, asked, pictures)],
        "answers_wrong": [shown(i) for i in _of_different_images(wrong, asked, pictures)],
        **_confusions(asked, said, choices),
    }


def _of_different_images(rows: np.ndarray, asked: Sequence[Question], most: int) -> list[int]:
    chosen: dict[int, int] = {}
    for i in rows.tolist():
        if len(chosen) >= most:
            break
        chosen.setdefault(asked[i].place, i)
    return list(chosen.values())


def _confusions(asked: Sequence[Question], said: Sequence[str], choices: Choices) -> dict[str, Any]:
    """The matrix (rows: the right answer) where there are few answers, and the most frequent mistakes."""
    pairs = Counter((plain(q.answer), s) for q, s in zip(asked, said, strict=True))
    mistakes = [(a, b, n) for (a, b), n in pairs.most_common() if a != b][:50]
    listed = {"top_confusions": [{"class": a, "predicted": b, "count": n} for a, b, n in mistakes]}
    place = choices.places
    names = sorted({a for a, _ in pairs} | {b for _, b in pairs}, key=lambda a: (place.get(a, len(place)), a))
    if len(names) > MOST_CLASSES:
        return listed
    row = {name: i for i, name in enumerate(names)}
    matrix = np.zeros((len(names), len(names)), dtype=int)
    for (a, b), n in pairs.items():
        matrix[row[a], row[b]] += n
    return {**listed, "confusion": {"classes": names, "matrix": matrix.tolist()}}
