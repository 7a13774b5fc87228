"""The questions of a split with their answers, and the answers among which a model may choose."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from diptych.core.errors import EvalError
from diptych.data.record_files import Pieces

ANSWERS_FILE = "answers.txt"
"""A file of a dataset's folder with a possible answer a line."""


class Question(NamedTuple):
    """A question about the image at `place` of a split; `sort` says what it asks for (colour, count, ...), if known."""

    place: int
    question: str
    answer: str
    sort: str = ""


class Questions(NamedTuple):
    """All questions of some records, and how many turns of conversations were left out, being about earlier ones."""

    asked: list[Question]
    later_turns: int
    source: str


class Choices(NamedTuple):
    """The answers that a model may give, as they are written, without repeats; `source` says where they are from."""

    answers: tuple[str, ...]
    source: str

    @property
    def places(self) -> dict[str, int]:
        """The place of each answer, spelled as answers are compared."""
        return {plain(a): i for i, a in enumerate(self.answers)}


def plain(answer: str) -> str:
    """An answer as it is compared: lower case, single spaces, no punctuation around it."""
    return re.sub(r"^\W+|\W+$", "", " ".join(answer.lower().split()))


def read_questions(split: Any, places: Iterable[int]) -> Questions:
    """The questions of the records at `places`: from their segments, else from meta "questions" (as `scenes` has them).

    A question segment with as many alternatives as the answer segment after it holds so many questions; of one
    question with several people's answers, the most common answer (the first of equals) counts as right.
    """
    asked: list[Question] = []
    later, sources = 0, set()
    for place in places:
        meta = split.meta(place)
        found, more = _of_segments(split.pieces(place), meta, place)
        if found:
            sources.add("segments")
        elif found := _of_meta(meta, place):
            sources.add("meta")
        asked += found
        later += more
    return Questions(asked, later, " and ".join(sorted(sources)))


def read_choices(wanted: str, folder: Path | None, train: Sequence[Question], judged: Sequence[Question]) -> Choices:
    """The answers to choose from: a file, or for "" the folder's answers.txt, else all answers of the train split, else
    of the split itself (which then tells the model what can be asked: it is said in the result)."""
    path = Path(wanted) if wanted else None
    if path is None and folder is not None and (folder / ANSWERS_FILE).is_file():
        path = folder / ANSWERS_FILE
    if path is not None:
        return Choices(_checked(_lines(path), str(path)), path.name)
    for questions, source in ((train, "the answers of the train split"), (judged, "the answers of the split itself")):
        if questions:
            return Choices(_checked(sorted({q.answer for q in questions}), source), source)
    raise EvalError("vqa must have answers to choose from; got none. Give a file with one a line: answers=answers.txt")


def read_answers(path: Path) -> tuple[str, ...]:
    """The answers of a file, one a line."""
    return _checked(_lines(path), str(path))


def _of_segments(pieces: Pieces, meta: dict[str, Any], place: int) -> tuple[list[Question], int]:
    """The questions of a record's first turn, and how many turns come after it."""
    turns = [(q, a) for q, a in itertools.pairwise(pieces.texts) if (q.role, a.role) == ("question", "answer")]
    if not turns or pieces.texts[0].role != "question":
        return [], 0
    questions, answers = turns[0][0].texts, turns[0][1].texts
    sorts = meta.get("kinds")
    if not isinstance(sorts, list) or len(sorts) != len(questions):
        sorts = [""] * len(questions)
    if len(questions) == 1:
        answers = (Counter(answers).most_common(1)[0][0],)
    if len(questions) != len(answers):
        raise EvalError(
            f"a record must have an answer a question, or one question; got {len(questions)} questions and "
            f"{len(answers)} answers in record {place}. Give both segments equally many alternatives."
        )
    found = [Question(place, q, a, str(s)) for q, a, s in zip(questions, answers, sorts, strict=True)]
    return found, len(turns) - 1


def _of_meta(meta: dict[str, Any], place: int) -> list[Question]:
    listed = meta.get("questions")
    if not isinstance(listed, list):
        return []
    return [
        Question(place, str(q["question"]), str(q["answer"]), str(q.get("kind", "")))
        for q in listed
        if isinstance(q, dict) and {"question", "answer"} <= q.keys()
    ]


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise EvalError(f"answers must be a text file with one a line; got {str(path)!r} ({reason}).") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _checked(answers: Sequence[str], source: str) -> tuple[str, ...]:
    distinct: dict[str, str] = {}
    for answer in answers:
        distinct.setdefault(plain(answer), answer)
    kept = tuple(distinct.values())
    if len(kept) < 2:
        raise EvalError(
            f"answers to choose from must be at least 2; got {len(kept)} from {source}. Write one a line, or let the "
            "model write freely: answers=free"
        )
    return kept
