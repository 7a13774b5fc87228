"""The questions of a split with their answers, and the answers among which a model may choose."""

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
    """A question about the image at `place` of a split; `sort` says what it asks for (colour, count, ...), `begins` its
    type ("what is the"), and `people` what each of several people answered, if known."""

    place: int
    question: str
    answer: str
    sort: str = ""
    begins: str = ""
    people: tuple[str, ...] = ()


class Questions(NamedTuple):
    """All questions of some records, where they are from, and what was left out or done otherwise than in training.

    later_turns   turns of conversations that were left out, being about earlier ones
    other_images  records that were left out, having no image or several
    moved_images  records whose image stood behind some words, and is shown before them
    """

    asked: list[Question]
    source: str
    later_turns: int = 0
    other_images: int = 0
    moved_images: int = 0


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

    All words before a record's first answer are its question. With as many alternatives as the answer it holds so many
    questions; of one question with several people's answers, the most common answer (the first of equals) is right.
    """
    asked: list[Question] = []
    sources: set[str] = set()
    later = other = moved = 0
    for place in places:
        meta, pieces = split.meta(place), split.pieces(place)
        turns = sum(t.role == "answer" for t in pieces.texts)
        found = _of_segments(pieces, meta, place) if turns else _of_meta(meta, place)
        if not found:
            continue
        if len(pieces.images) != 1:
            other += 1
            continue
        asked += found
        sources.add("segments" if turns else "meta")
        later += max(0, turns - 1)
        moved += turns > 0 and pieces.images[0] > 0
    return Questions(asked, " and ".join(sorted(sources)), later, other, moved)


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


def _of_segments(pieces: Pieces, meta: dict[str, Any], place: int) -> list[Question]:
    """The questions of a record's first turn; [] where none comes before the answer."""
    first = next(i for i, t in enumerate(pieces.texts) if t.role == "answer")
    before, answers = pieces.texts[:first], pieces.texts[first].texts
    if not any(t.role == "question" for t in before):
        return []
    count = max(len(t.texts) for t in before)
    questions = [" ".join(t.texts[i % len(t.texts)] for t in before) for i in range(count)]
    sorts, begins, people = (_of_each(meta, key, count) for key in ("kinds", "question_types", "answers_of"))
    if count == 1:
        answers = (Counter(answers).most_common(1)[0][0],)
    if count != len(answers):
        raise EvalError(
            f"a record must have an answer a question, or one question; got {count} questions and "
            f"{len(answers)} answers in record {place}. Give both segments equally many alternatives."
        )
    return [
        Question(place, q, a, str(s or ""), str(b or ""), tuple(map(str, p or ())))
        for q, a, s, b, p in zip(questions, answers, sorts, begins, people, strict=True)
    ]


def _of_each(meta: dict[str, Any], key: str, count: int) -> list[Any]:
    """What the meta says of each question under `key`; None where it does not, or of another number of questions."""
    listed = meta.get(key)
    return listed if isinstance(listed, list) and len(listed) == count else [None] * count


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
