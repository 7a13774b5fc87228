"""Answers that should be yes or no: how they are read, and what is counted of them.

Two programs read POPE's answers, and disagree:

original    The first sentence (up to the first full stop), without commas, cut at spaces: "No", "not" or "no" among its
            words means no, and whatever else is said means yes. An empty answer, or "NO", or "no!", is yes.
lmms_eval   What is said must be "yes" or "no" and nothing else, but for capital letters and white space around it:
            "Yes." is wrong. An answer that is neither misses no yes: it is left out of recall.
"""

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64

from diptych.evals.sums import quotient

Parser = Literal["original", "lmms_eval"]


def read_answer(said: str, parser: Parser) -> str:
    """ "yes", "no", or "" where the parser makes neither of what was said."""
    if parser == "lmms_eval":
        bare = said.lower().strip()
        return bare if bare in ("yes", "no") else ""
    words = said.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def is_unclear(said: str) -> bool:
    """Whether no word of an answer says yes or no, whichever parser reads it."""
    return re.search(r"\b(?:yes|no|not)\b|n['’]t\b", said, re.IGNORECASE) is None


def answer_counts(read: Sequence[str], truth: Sequence[str]) -> Float64[np.ndarray, "n 5"]:
    """By question 0 or 1: yes rightly, yes wrongly, no rightly, no wrongly, and read as neither."""
    rows = []
    for mine, right in zip(read, truth, strict=True):
        rows.append([mine == a and right == b for a, b in (("yes", "yes"), ("yes", "no"), ("no", "no"), ("no", "yes"))])
        rows[-1].append(mine == "")
    return np.array(rows, dtype=np.float64).reshape(-1, 5)


def hits_of(read: Sequence[str], truth: Sequence[str]) -> Bool[np.ndarray, " n"]:
    """Which answers are right."""
    return np.array([a == b for a, b in zip(read, truth, strict=True)], dtype=bool)


def precision(sums: Float64[np.ndarray, "s 5"]) -> Float64[np.ndarray, " s"]:
    """Of the answers yes, the share that is right."""
    return quotient(sums[:, 0], sums[:, 0] + sums[:, 1])


def recall(sums: Float64[np.ndarray, "s 5"]) -> Float64[np.ndarray, " s"]:
    """Of the questions to be answered yes (and answered at all), the share that is."""
    return quotient(sums[:, 0], sums[:, 0] + sums[:, 3])


def f1(sums: Float64[np.ndarray, "s 5"]) -> Float64[np.ndarray, " s"]:
    """The harmonic mean of precision and recall; 0 where no yes is right."""
    return quotient(2 * sums[:, 0], 2 * sums[:, 0] + sums[:, 1] + sums[:, 3])


def balanced_accuracy(sums: Float64[np.ndarray, "s 5"]) -> Float64[np.ndarray, " s"]:
    """The mean of the shares of yes and of no that are answered rightly, of the questions answered at all: a half for
    who always says the same, however the answers are spread."""
    return (recall(sums) + quotient(sums[:, 2], sums[:, 2] + sums[:, 1])) / 2
