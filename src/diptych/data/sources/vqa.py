"""VQA's two files: questions, and ten people's answers to each (Goyal et al., arXiv:1612.00837; OK-VQA alike).

    {"data_subtype": "val2014", "questions": [{"image_id": 42, "question": "Is it red?", "question_id": 42000}]}
    {"annotations": [{"question_id": 42000, "question_type": "is it", "answer_type": "yes/no",
                      "multiple_choice_answer": "yes", "answers": [{"answer": "yes"}, ...]}]}

Either file may be named; the other is found beside it.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diptych.core.errors import DataError
from diptych.core.record import Record, Segment
from diptych.data.image_folder import LOOKED_AT, find_image_folder
from diptych.data.json_documents import document, first_item, head_of, listed
from diptych.data.sources.source import Look, Reject, Source, SourceConfig, read_file

OPEN = "OpenEnded_"


def recognises(found: Look) -> bool:
    """Whether this is a .json with VQA's questions, or with its answers."""
    if not found.is_file or found.suffix != "json":
        return False
    head = head_of(found.path)
    question, annotation = first_item(head, "questions"), first_item(head, "annotations")
    return {"question_id", "image_id", "question"} <= question.keys() or {"question_id", "answers"} <= annotation.keys()


class VqaConfig(SourceConfig):
    """`questions` and `annotations` name the other file where it does not lie beside the first under its usual name
    (v2_OpenEnded_mscoco_val2014_questions.json, v2_mscoco_val2014_annotations.json). Images lie in `image_root`, else
    near the file in a folder called as the data's part (val2014)."""

    path: str
    image_root: str = ""
    questions: str = ""
    annotations: str = ""

    def build(self) -> "Vqa":
        """The source."""
        return Vqa(self)


class Vqa(Source):
    """A record an image, in the order of first questions: an image, its questions, and the answer that most people
    gave to each.

    Meta: `answers_of` (per question all people's answers), `question_types` ("what is the"), `answer_types` and the
    same as `kinds` ("yes/no", "number", "other"), `question_ids`, image_id. A question that has the same words and
    answer as another of its image begins a further record, keyed ``<image id>-2``: pairs of a record are distinct.
    """

    config: VqaConfig

    def __init__(self, config: VqaConfig) -> None:
        self.config = config
        self.path = Path(config.path)

    def records(self) -> Iterator[Record | Reject]:
        """The images with their questions. Raises DataError where answers or images cannot be found."""
        asked_in, told_in = self._files()
        whole, told = document(asked_in, "VQA questions"), document(told_in, "VQA annotations")
        answers = {str(a.get("question_id")): a for a in listed(told, "annotations", told_in)}
        part = str(whole.get("data_subtype") or told.get("data_subtype") or "")
        asked: dict[str, list[dict[str, Any]]] = {}
        for q in listed(whole, "questions", asked_in):
            asked.setdefault(str(q.get("image_id")), []).append(q)
        first = [_names(image, part) for image, _ in zip(asked, range(LOOKED_AT), strict=False)]
        root = find_image_folder(first, asked_in, self.config.image_root, [part] if part else [])
        for image, questions in asked.items():
            name = next((n for n in _names(image, part) if (root / n).is_file()), _names(image, part)[0])
            data = read_file(root / name, image, self.max_bytes)
            rounds: list[list[tuple[dict[str, Any], dict[str, Any]]]] = []
            for q in questions:
                wrong = _problem(q, answers.get(str(q.get("question_id"))))
                if wrong:
                    key = f"{image}-q{q.get('question_id')}"
                    yield Reject(key, wrong, "bad_question", f"{asked_in} question {q.get('question_id')}")
                else:
                    _place((q, answers[str(q.get("question_id"))]), rounds)
            if isinstance(data, Reject):
                yield data
                continue
            for number, pairs in enumerate(rounds, 1):
                yield _record(image if number == 1 else f"{image}-{number}", name, data, pairs)

    def where(self, key: str) -> str:
        """The image in the file."""
        return f"{self.path} image {key}"

    def _files(self) -> tuple[Path, Path]:
        """(the questions' file, the annotations' file)."""
        mine_are_questions = "questions" in (head_of(self.path) or {})
        asked = self.path if mine_are_questions else self._other(self.config.questions, "questions")
        return asked, self._other(self.config.annotations, "annotations") if mine_are_questions else self.path

    def _other(self, given: str, kind: str) -> Path:
        if given:
            path = self.path.parent / given
            if not path.is_file():
                raise DataError(f"{kind} must be a file; got {path}, which is not there. Check the path.")
            return path
        name = self.path.name
        if kind == "annotations":
            tried = [name.replace("questions", "annotations").replace(OPEN, "").replace("MultipleChoice_", "")]
            tried.append(name.replace("questions", "annotations"))
        else:
            asked = name.replace("annotations", "questions")
            tried = [asked.replace("mscoco", f"{OPEN}mscoco"), asked]
        for one in tried:
            if one != name and (self.path.parent / one).is_file():
                return self.path.parent / one
        raise DataError(
            f"{self.path} must have its {kind} beside it; got none called {' or '.join(dict.fromkeys(tried))}. "
            f"Say where they are: {kind}=FILE"
        )


def _names(image: str, part: str) -> tuple[str, ...]:
    """The names that an image of this number may have, the usual one first."""
    if not image.isdecimal():
        return image, f"{image}.jpg", f"{image}.png"
    number = f"{int(image):012d}.jpg"
    return (*((f"COCO_{part}_{number}",) if part else ()), number, f"{image}.jpg", f"{image}.png")


def _said(annotation: dict[str, Any]) -> list[str]:
    people = annotation.get("answers")
    return [str(p.get("answer", "")) for p in people if isinstance(p, dict)] if isinstance(people, list) else []


def _best(annotation: dict[str, Any]) -> str:
    """What most people said: as the file has it, else counted (the first of equals)."""
    given = annotation.get("multiple_choice_answer")
    return (
        given if isinstance(given, str) and given.strip() else Counter(_said(annotation)).most_common(1)[0][0]
    ).strip()


def _problem(question: dict[str, Any], annotation: dict[str, Any] | None) -> str:
    if not isinstance(question.get("question"), str) or not question["question"].strip():
        return "a question must have words; this one has none. Leave it out."
    if annotation is None:
        return "a question must have answers; there is no annotation of its id. Is the other file of the same part?"
    if not any(a.strip() for a in _said(annotation)) or not _best(annotation):
        return "a question must have answers; its annotation holds none. Leave it out."
    return ""


def _place(pair: tuple[dict[str, Any], dict[str, Any]], rounds: list[list[Any]]) -> None:
    """Put a question into the first record of its image that has no such pair yet."""

    def words(one: tuple[dict[str, Any], dict[str, Any]]) -> tuple[str, str]:
        return one[0]["question"].strip(), _best(one[1])

    for pairs in rounds:
        if words(pair) not in {words(p) for p in pairs}:
            pairs.append(pair)
            return
    rounds.append([pair])


def _record(key: str, name: str, data: bytes, pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> Record:
    kinds = [str(a.get("answer_type", "")) for _, a in pairs]
    number = pairs[0][0].get("image_id")
    return Record(
        key,
        (
            Segment("image", data, name.rpartition(".")[2], role="image"),
            Segment("text", tuple(q["question"].strip() for q, _ in pairs), "txt", role="question", loss=False),
            Segment("text", tuple(_best(a) for _, a in pairs), "txt", role="answer"),
        ),
        {
            "image": name,
            **({"image_id": number} if isinstance(number, (int, str)) else {}),
            "answers_of": [_said(a) for _, a in pairs],
            "question_types": [str(a.get("question_type", "")) for _, a in pairs],
            "answer_types": kinds,
            "kinds": kinds,
            "question_ids": [q.get("question_id") for q, _ in pairs],
        },
    )
