"""Easy VQA: 5,000 pictures of one coloured shape each, and 48,000 questions about them with 13 answers.

V. Zhou, "Easy Visual Question Answering", 2019. Pictures, questions and answers from PyPI easy-vqa. Many questions are
of yes or no ("Is there a red shape?"), so a blind model is right more often than by chance; judge beside it.
"""

import json
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import ClassVar, NamedTuple

from pydantic import Field

from diptych.core.errors import DataError
from diptych.core.record import Record, Segment
from diptych.core.seeds import fold
from diptych.data.archive import read_members
from diptych.data.corpora.corpus import Corpus, CorpusConfig
from diptych.data.fetch import Package
from diptych.data.pack import PackConfig
from diptych.data.sources.source import Reject

KINDS: dict[str, str] = {
    **dict.fromkeys(("circle", "rectangle", "triangle"), "shape"),
    **dict.fromkeys(("black", "blue", "brown", "gray", "green", "red", "teal", "yellow"), "colour"),
    **dict.fromkeys(("yes", "no"), "yes or no"),
}
"""What each of the thirteen answers answers."""


class EasyVqaConfig(CorpusConfig):
    """`val` is the share of the training pictures that is held out; the package's own test pictures are the test."""

    val: float = Field(default=0.05, ge=0.0, lt=0.5)

    def build(self) -> "EasyVqa":
        """The corpus."""
        return EasyVqa(self)


class Asked(NamedTuple):
    """A question, its answer and the picture's number."""

    question: str
    answer: str
    image: int


class EasyVqa(Corpus):
    """A record a picture, keyed <split of the package>-<number>: the image, its questions, their answers.

    Questions and answers are alternatives of two text segments, the i-th of one belonging to the i-th of the other;
    meta holds their kinds in the same order.
    """

    config: EasyVqaConfig
    summary: ClassVar[str] = "5 k pictures of one shape, 48 k questions about them, 13 answers"
    origin: ClassVar[str] = "PyPI easy-vqa 1.0"
    licence: ClassVar[str] = "MIT"
    size: ClassVar[str] = "5 k pictures of 64 px, 3 MB to fetch, 21 MB packed"
    version: ClassVar[str] = "1"
    packing: ClassVar[PackConfig] = PackConfig(val=0.0, vocab_size=512, context_length=32)
    packages: ClassVar[tuple[Package, ...]] = (
        Package(
            client="pip",
            name="easy-vqa",
            version="1.0",
            filename="easy_vqa-1.0-py3-none-any.whl",
            sha256="fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f",
        ),
    )

    def answers(self) -> tuple[str, ...]:
        """The thirteen answers."""
        return tuple(sorted(KINDS))

    def records(self) -> Iterator[Record | Reject]:
        """The pictures of the package's train split, then those of its test split, by number."""
        pictures: dict[str, dict[int, bytes]] = {"train": {}, "test": {}}
        asked: dict[str, list[Asked]] = {"train": [], "test": []}
        for member in read_members(self.archives()[0], _is_wanted):
            path = PurePosixPath(member.name)
            if path.name == "questions.json":
                asked[path.parts[-2]] = _questions(member.name, member.data)
            else:
                pictures[path.parts[-3]][int(path.stem)] = member.data
        for split, found in pictures.items():
            questions: dict[int, list[Asked]] = {}
            for one in asked[split]:
                questions.setdefault(one.image, []).append(one)
            for number in sorted(found):
                yield self._record(split, number, found[number], questions.get(number, []))

    def _record(self, split: str, number: int, picture: bytes, asked: list[Asked]) -> Record | Reject:
        key = f"{split}-{number}"
        said = {one.question: one.answer for one in asked}  # a question is asked once of a picture
        strange = sorted(set(said.values()) - set(KINDS))
        if not said:
            return Reject(key, "a picture must have a question; it has none.", "no_question", size=len(picture))
        if strange:
            message = f"an answer must be one of {', '.join(self.answers())}; got {', '.join(strange)}."
            return Reject(key, message, "unknown_answer", size=len(picture))
        segments = (
            Segment("image", picture, "png", role="image"),
            Segment("text", tuple(said), "txt", role="question", loss=False),
            Segment("text", tuple(said.values()), "txt", role="answer"),
        )
        return Record(key, segments, {"split": self._split(split, number), "kinds": [KINDS[a] for a in said.values()]})

    def _split(self, split: str, number: int) -> str:
        if split == "test":
            return "test"
        return "val" if fold("easy-vqa", number) / 2**63 < self.config.val else "train"


def _is_wanted(name: str) -> bool:
    parts = PurePosixPath(name).parts
    if len(parts) >= 2 and parts[-1] == "questions.json":
        return parts[-2] in ("train", "test")
    picture = len(parts) >= 3 and parts[-2] == "images" and parts[-3] in ("train", "test")
    return picture and parts[-1].endswith(".png") and parts[-1][:-4].isdigit()


def _questions(name: str, data: bytes) -> list[Asked]:
    try:
        return [Asked(str(q).strip(), str(a).strip().lower(), int(i)) for q, a, i in json.loads(data)]
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{name} must hold lists of question, answer and picture; got {error}. Fetch it again."
        ) from None
