"""The question-only baseline: what is right by knowing the questions of the train split and never looking.

A question whose text was asked in training gets the answer that was most often right there. Another gets it from the
questions most like it (by the share of words that they have in common); one that shares no word with any, the answer
most common of all. A model must beat this to be said to see.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from diptych.evals.caption_words import caption_words
from diptych.evals.questions import Question, plain


class Guess(NamedTuple):
    """An answer and why: "same question", "similar question" or "most common answer"."""

    answer: str
    why: str


class QuestionOnly:
    """Answers questions from the questions and answers of a train split alone."""

    def __init__(self, train: Sequence[Question]) -> None:
        self.answers: dict[str, Counter[str]] = defaultdict(Counter)
        for q in train:
            self.answers[_spelled(q.question)][plain(q.answer)] += 1
        self.overall = Counter(plain(q.answer) for q in train)
        self.words = {question: frozenset(caption_words(question)) for question in self.answers}
        self.asked_with: dict[str, list[str]] = defaultdict(list)
        for question, words in self.words.items():
            for word in words:
                self.asked_with[word].append(question)
        self._known: dict[str, Guess] = {}

    def guess(self, question: str) -> Guess:
        """The answer to a question."""
        spelled = _spelled(question)
        if spelled not in self._known:
            self._known[spelled] = self._guess(spelled)
        return self._known[spelled]

    def _guess(self, question: str) -> Guess:
        if question in self.answers:
            return Guess(self._most_common(self.answers[question]), "same question")
        words = frozenset(caption_words(question))
        common = Counter(other for word in words for other in self.asked_with.get(word, ()))
        if not common:
            return Guess(self._most_common(self.overall), "most common answer")
        share = {other: n / len(words | self.words[other]) for other, n in common.items()}
        best = max(share.values())
        alike: Counter[str] = Counter()
        for other, value in share.items():
            if value == best:
                alike += self.answers[other]
        return Guess(self._most_common(alike), "similar question")

    def _most_common(self, answers: Counter[str]) -> str:
        """The most frequent answer; of equals the one that is more common of all, then the first by letters."""
        return min(answers, key=lambda a: (-answers[a], -self.overall[a], a))


def _spelled(question: str) -> str:
    return " ".join(question.lower().split())
