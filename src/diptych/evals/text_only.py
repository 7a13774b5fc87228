"""What can be known of captions without a picture and without the model under test: is a test solvable blind?

Two priors, as plain as can be. `LikelyWords` has read right captions and takes the caption that is most like them;
`TellingWords` has also seen wrong ones and takes the caption whose words, letters and length are those of right ones.
Each judges an item by others alone: those of its image, of its set and over the same captions are left out.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import pairwise
from math import log
from typing import NamedTuple

from diptych.evals.caption_words import caption_words

START, END = "<", ">"
ALL = ("all",)
"""The feature that every text has: its count is how many texts there are."""

CHARACTERS = 3
"""Letters in a row that are a feature."""


class Choice(NamedTuple):
    """The captions to choose from, the right one first, and what they are about (an image, or a set of images)."""

    texts: tuple[str, ...]
    about: Hashable


class Counts:
    """How often features occur, over all choices but those that are about the same, or between the same captions."""

    def __init__(self, choices: Sequence[Choice]) -> None:
        self.choices = choices
        self.all: Counter[Hashable] = Counter()
        self._part: dict[Hashable, Counter[Hashable]] = defaultdict(Counter)

    def add(self, item: int, features: Iterable[Hashable], weight: float = 1.0) -> None:
        """Count features of a text of choice `item`."""
        parts = [self._part[key] for key in self._keys(item)]
        for feature in features:
            self.all[feature] += weight  # type: ignore[assignment]  # counts are shares of texts
            for part in parts:
                part[feature] += weight  # type: ignore[assignment]

    def without(self, item: int) -> Callable[[Hashable], float]:
        """From a feature to how often others than `item` and its kin have it."""
        about, between, both = (self._part[key] for key in self._keys(item))
        return lambda f: max(0.0, round(self.all[f] - about[f] - between[f] + both[f], 9))

    def _keys(self, item: int) -> tuple[Hashable, Hashable, Hashable]:
        choice = self.choices[item]
        captions = frozenset(choice.texts)
        return ("about", choice.about), ("between", captions), ("both", choice.about, captions)


class LikelyWords:
    """log p of captions under a smoothed bigram model of right captions: those given, else those of other items.

    p(w | v) = (n(v w) + p(w)) / (n(v) + 1), p(w) = (n(w) + 1) / (n + words), an unknown word counting as one.
    """

    def __init__(self, choices: Sequence[Choice], captions: Iterable[str] = ()) -> None:
        self.counts = Counts(choices)
        self.given = False
        for text in captions:
            self.given = True
            self.counts.all.update(_bigram_features(text))
        if not self.given:
            for i, choice in enumerate(choices):
                self.counts.add(i, _bigram_features(choice.texts[0]))
        self.words = 1 + sum(isinstance(f, str) for f in self.counts.all)

    def scores(self, item: int) -> list[float]:
        """Of each caption of an item."""
        count = (lambda f: float(self.counts.all[f])) if self.given else self.counts.without(item)
        total = count(("words",))
        return [
            sum(
                log((count((v, w)) + (count(w) + 1) / (total + self.words)) / (count(("first", v)) + 1))
                for v, w in pairwise(_row(text))
            )
            for text in self.counts.choices[item].texts
        ]


class TellingWords:
    """Log odds that captions are right, by naive Bayes over their words, pairs of words, letters in a row and length.

    Features are present or not; the wrong captions of an item weigh as much as its right one; counts begin at 1.
    """

    def __init__(self, choices: Sequence[Choice]) -> None:
        self.right, self.wrong = Counts(choices), Counts(choices)
        self.features = [telling_features(c.texts) for c in choices]
        for i, (first, *others) in enumerate(self.features):
            self.right.add(i, first)
            for features in others:
                self.wrong.add(i, features, 1 / len(others))

    def scores(self, item: int) -> list[float]:
        """Of each caption of an item."""
        right, wrong = self.right.without(item), self.wrong.without(item)
        of_right, of_wrong = log(right(ALL) + 2), log(wrong(ALL) + 2)
        return [
            sum(log(right(f) + 1) - of_right - log(wrong(f) + 1) + of_wrong for f in features if f != ALL)
            for features in self.features[item]
        ]


def telling_features(texts: Sequence[str]) -> list[set[Hashable]]:
    """What naive Bayes sees of each of an item's captions: its words and letters, and its length among the others."""
    rows = [_row(text) for text in texts]
    lengths = [len(text) for text in texts]
    found = []
    for text, row, length in zip(texts, rows, lengths, strict=True):
        letters = {text[i : i + CHARACTERS] for i in range(len(text) - CHARACTERS + 1)}
        features: set[Hashable] = {ALL, *row[1:-1], *pairwise(row), *(("letters", part) for part in letters)}
        if min(lengths) < max(lengths):
            features |= {("longest", length == max(lengths)), ("shortest", length == min(lengths))}
        found.append(features)
    return found


def _row(text: str) -> list[str]:
    return [START, *caption_words(text), END]


def _bigram_features(text: str) -> list[Hashable]:
    row = _row(text)
    return [*row[1:], *pairwise(row), *(("first", v) for v in row[:-1]), *(("words",) for _ in row[1:])]
