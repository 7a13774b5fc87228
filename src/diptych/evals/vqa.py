"""Visual questions: is the right answer found, and is it found by looking? Beside what needs no picture at all."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64
from pydantic import Field

from diptych.core.errors import EvalError
from diptych.data.dataset import Dataset
from diptych.data.image_reader import ImageReader
from diptych.evals.eval import Estimate, Eval, EvalConfig, EvalResult, ItemTable, some
from diptych.evals.items import item_table, numbered
from diptych.evals.question_only import Guess, QuestionOnly
from diptych.evals.questions import Choices, Question, plain, read_choices, read_questions
from diptych.evals.scoring import (
    blank_images,
    choose_places,
    dataset_folder,
    describe_broken,
    distinct,
    paired_values,
)
from diptych.evals.statistics import PairedTest, mean_estimate, paired_difference, share_estimate
from diptych.evals.vqa_accuracy import ACCURACIES, chance_accuracies
from diptych.evals.vqa_tables import vqa_tables
from diptych.models.capabilities import require
from diptych.models.pretrained import Pretrained
from diptych.report.figures import Figure, Interval, Intervals

FREE = "free"
"""The setting that lets a model write its answers."""
PEOPLE = 10
"""As many people as VQA asks: where the data knows one answer, that many are taken to have given it."""


class VqaConfig(EvalConfig):
    """Settings of the question-answering eval."""

    answers: str = ""
    """What to choose among: a file with an answer a line; empty: the dataset's answers.txt, else all answers of its
    train split; "free": the model writes its answer, which must equal the right one but for case and punctuation."""
    convention: Literal["auto", "exact", "official", "official_first", "lmms_eval"] = "auto"
    """What accuracy is: "exact": the answer equals the right one, but for case and punctuation around it; the others
    are VQA accuracies beside what many people answered (`evals/vqa_accuracy.py`). "auto": official where the data knows
    all people's answers, else exact. Where it knows them, the others stand beside."""
    max_tokens: int = Field(0, ge=0)
    """At most so many tokens of an answer that is written; 0: what the model's context holds."""
    blind: bool = True
    """Ask the same of the model when it is shown a blank image."""
    train_items: int = Field(20_000, ge=0)
    """How many records of the train split the question-only baseline learns from; 0: it is left out."""
    batch_size: int = Field(32, ge=1)
    """Images at once, with all their questions."""
    bootstrap: int = Field(1000, ge=100)
    seed: int = 0
    pictures: int = Field(24, ge=0)
    """How many right and how many wrong answers go into the report, with their pictures."""

    quick: ClassVar[Mapping[str, Any] | None] = {"max_items": 300}

    def unsuited(self, model: Pretrained, data: Any) -> str:
        """Also where records hold no questions."""
        asked = read_questions(data, some(data)).asked
        return super().unsuited(model, data) or ("" if asked else "its records hold no questions")

    def build(self) -> "Vqa":
        """The eval."""
        return Vqa(self)


class Answered(NamedTuple):
    """What a model says to each question, in its own words, and how probable it finds that (of the answers to choose
    from; None where it writes)."""

    said: list[str]
    confidence: Float64[np.ndarray, " q"] | None


class Vqa(Eval):
    """Accuracy over all questions of a split, with intervals over images, since one image has many questions.

    Beside it: the same model shown blank images (`blind`), what the questions alone make likely (`question_only`), and
    the most common answer; and what the model gains over the first two, tested on the same questions. Chance is one of
    all the answers, or what a random one of them reaches beside many people's. Every answer of the list is scored
    exactly, log p(answer and its end | image, question).
    """

    needs: ClassVar[tuple[str, ...]] = ("generate_text",)
    headline: ClassVar[str] = "accuracy"

    def __init__(self, config: VqaConfig) -> None:
        self.config = config

    def run(self, model: Pretrained, data: Any, artifacts: bool = True) -> EvalResult:
        """Evaluate `model` on the split `data`, whose records must hold questions and answers."""
        config = self.config
        require(model.model, self.needs, "vqa")
        places = choose_places(data, config.max_items)
        found = read_questions(data, places)
        if not found.asked:
            raise EvalError(
                f"vqa must be given records with questions and answers; got none among {len(places)} of {data.name}. "
                "Pack conversations, or take a corpus that has them (easy_vqa, scenes)."
            )
        folder = dataset_folder(config.data, data)
        train = train_questions(folder, config.train_items)
        choices = read_choices("" if config.answers == FREE else config.answers, folder, train, found.asked)
        reader = ImageReader(data, model.model.config.image_format, config.batch_size)
        asked, answered, clusters = self._look(model, reader, found.asked, choices)
        blind = self._blind(model, reader, asked, choices) if config.blind else None
        baseline = QuestionOnly(train) if train else None
        guesses = None if baseline is None else [baseline.guess(q.question) for q in asked]
        judged = Judged(asked, answered, blind, guesses, clusters, choices, config)
        settings = {
            "answers_from": "the model's own words" if config.answers == FREE else choices.source,
            "answer_list": list(choices.answers[:200]),
            "questions": len(asked),
            "questions_from": found.source,
            "images": len(np.unique(clusters)),
            "left_out": {"later_turns": found.later_turns, "records_without_one_image": found.other_images},
            "images_moved_to_the_front": found.moved_images,
            "accuracy_is": judged.convention,
            "questions_that_people_answered": sum(bool(q.people) for q in asked),
            "answers_outside_the_list": sum(plain(q.answer) not in choices.places for q in asked),
            "question_only_by": _reasons(guesses),
            "train_questions": len(train),
            "broken_images": describe_broken(reader),
        }
        return config.result(
            model,
            data,
            metrics=judged.metrics(),
            settings=settings,
            items=judged.items(data) if artifacts else {},
            artifacts=judged.tables(data) if artifacts else {},
            figures=judged.figures() if artifacts else (),
        )

    def _look(
        self, model: Pretrained, reader: ImageReader, asked: Sequence[Question], choices: Choices
    ) -> tuple[list[Question], Answered, Int64[np.ndarray, " q"]]:
        """The questions whose image can be read, what is said to them, and which image each is about."""
        of_place: dict[int, list[Question]] = {}
        for q in asked:
            of_place.setdefault(q.place, []).append(q)
        kept: list[Question] = []
        parts: list[Answered] = []
        hashes: list[bytes] = []
        for batch in reader.batches(list(of_place)):
            questions = [q for place in batch.places for q in of_place[place]]
            image_of = [n for n, place in enumerate(batch.places) for _ in of_place[place]]
            parts.append(self._answer(model, batch.images, [q.question for q in questions], image_of, choices))
            kept += questions
            hashes += [h for h, place in zip(batch.hashes, batch.places, strict=True) for _ in of_place[place]]
        if not kept:
            raise EvalError(
                f"vqa must be given at least one readable image; got {len(reader.broken)} broken ones. "
                "Look at the split with: diptych inspect"
            )
        return kept, _joined(parts), distinct(hashes)

    def _blind(self, model: Pretrained, reader: ImageReader, asked: Sequence[Question], choices: Choices) -> Answered:
        """What the model says when it is shown nothing: equal questions then have equal answers, and are asked once."""
        texts = list(dict.fromkeys(q.question for q in asked))
        said = self._answer(model, blank_images(reader.format, 1), texts, [0] * len(texts), choices)
        row = {text: n for n, text in enumerate(texts)}
        rows = [row[q.question] for q in asked]
        confidence = None if said.confidence is None else said.confidence[rows]
        return Answered([said.said[r] for r in rows], confidence)

    def _answer(
        self, model: Pretrained, images: Any, questions: Sequence[str], image_of: Sequence[int], choices: Choices
    ) -> Answered:
        config = self.config
        if config.answers == FREE:
            said = model.generate(images, questions, image_of=image_of, max_tokens=config.max_tokens)
            return Answered(said, None)
        scores = model.answer_log_likelihoods(images, questions, choices.answers, image_of).double().softmax(1)
        best = scores.max(1)
        return Answered([choices.answers[i] for i in best.indices.tolist()], best.values.numpy())


class Judged:
    """Answers beside the right ones, the blind ones and the question-only baseline's."""

    def __init__(
        self,
        asked: Sequence[Question],
        answered: Answered,
        blind: Answered | None,
        guesses: Sequence[Guess] | None,
        clusters: Int64[np.ndarray, " q"],
        choices: Choices,
        config: VqaConfig,
    ) -> None:
        self.asked, self.answered, self.clusters, self.config, self.choices = asked, answered, clusters, config, choices
        self.truth = [plain(q.answer) for q in asked]
        self.convention: str = config.convention
        if config.convention == "auto":
            self.convention = "official" if any(q.people for q in asked) else "exact"
        self.hits = self._right(answered.said)
        self.others: dict[str, np.ndarray] = {}
        if blind is not None:
            self.others["blind"] = self._right(blind.said)
        if guesses is not None:
            self.others["question_only"] = self._right([g.answer for g in guesses])
        answers, counts = np.unique(np.array(self.truth), return_counts=True)
        self.most_common = str(answers[counts.argmax()])
        self.beside: dict[str, np.ndarray] = {}
        if any(q.people for q in asked):
            conventions = [c for c in ("exact", *ACCURACIES) if c != self.convention]
            self.beside = {f"{c}_accuracy": self._right(answered.said, c) for c in conventions}
        self.chances: np.ndarray | None = None
        if self.convention in ACCURACIES:
            people = [q.people or (q.answer,) * PEOPLE for q in asked]
            self.chances = np.array(chance_accuracies(self.convention, choices.answers, people))

    def metrics(self) -> dict[str, Estimate]:
        """Accuracy, that of what never looks, what is gained over it, and accuracy by what is asked for."""
        metrics = {"accuracy": self._share(self.hits)}
        for name, hits in self.others.items():
            metrics[f"{name}_accuracy"] = self._share(hits)
        metrics["majority_accuracy"] = self._share(self._right([self.most_common] * len(self.truth)))
        for name, hits in self.beside.items():
            metrics[name] = self._share(hits).replace(chance=None)
        for name, test in self.tests().items():
            metrics[f"gain_over_{name}"] = Estimate(
                value=test.difference, low=test.low, high=test.high, chance=0.0, n=test.n
            )
        for sort, rows in self._sorts().items():
            metrics[f"accuracy_{sort.replace(' ', '_')}"] = self._share(self.hits[rows], rows)
        return metrics

    def tests(self) -> dict[str, PairedTest]:
        """The model against what never looks, on the same questions."""
        return {
            name: paired_difference(self.hits, hits, self.clusters, seed=self.config.seed)
            for name, hits in self.others.items()
        }

    def items(self, split: Any) -> dict[str, ItemTable]:
        """Whether each question is answered right, by looking and without; and again for what is asked for."""
        keys = np.array(numbered([split.uid(q.place) for q in self.asked]))
        values: dict[str, np.ndarray] = {"accuracy": self.hits, **self.beside}
        if "blind" in self.others:  # what the questions alone make likely is no matter of the model
            values["blind_accuracy"] = self.others["blind"]
        values |= {f"gain_over_{name}": self.hits - hits.astype(float) for name, hits in self.others.items()}
        tables = {"questions": item_table(keys.tolist(), values, self.clusters)}
        for sort, rows in self._sorts().items():
            name = sort.replace(" ", "_")
            hits = {f"accuracy_{name}": self.hits[rows]}
            tables[f"questions_{name.replace('/', '_')}"] = item_table(keys[rows].tolist(), hits, self.clusters[rows])
        return tables

    def tables(self, split: Any) -> dict[str, Any]:
        """What the report shows: answers with pictures, accuracy by what is asked for, confusions, the paired tests."""
        by_sort = []
        for sort, rows in self._sorts().items():
            e = self._share(self.hits[rows], rows)
            others = {name: float(hits[rows].mean()) for name, hits in self.others.items()}
            by_sort.append({"name": sort, "n": len(rows), "value": e.value, "low": e.low, "high": e.high, **others})
        return {
            "by_question": by_sort,
            "against": {name: paired_values(test) for name, test in self.tests().items()},
            **vqa_tables(
                split,
                self.asked,
                [plain(s) for s in self.answered.said],
                self.hits > 0,
                self.answered.confidence,
                self.choices,
                self.config.pictures,
            ),
        }

    def _sorts(self) -> dict[str, Int64[np.ndarray, " r"]]:
        """The places of the questions that ask for each kind of thing, if the data says so."""
        sorts = np.array([q.sort for q in self.asked])
        return {s: np.flatnonzero(sorts == s) for s in sorted(set(sorts.tolist())) if s}

    def figures(self) -> tuple[Figure, ...]:
        """Accuracy by the words that questions begin with, where the data says which type each is of."""
        begins = np.array([q.begins for q in self.asked])
        types = [t for t in sorted(set(begins.tolist())) if t]
        rows = []
        for name in types:
            e = self._share(self.hits[begins == name], np.flatnonzero(begins == name))
            rows.append(Interval(name=name, value=e.value, low=e.low, high=e.high, chance=e.chance, n=e.n))
        rows.sort(key=lambda r: -r.value)
        words = f"Accuracy is {self.convention.replace('_', ' ')}."
        return (Intervals(title="By type of question", words=words, rows=tuple(rows)),) if rows else ()

    def _right(self, said: Sequence[str], convention: str = "") -> np.ndarray:
        """Which answers are right (bool), or to which degree (float). One person's answer counts as all people's."""
        convention = convention or self.convention
        if convention == "exact":
            return np.array([plain(a) == b for a, b in zip(said, self.truth, strict=True)])
        accuracy = ACCURACIES[convention]
        pairs = zip(said, self.asked, strict=True)
        return np.array([accuracy(s, q.people or (q.answer,) * PEOPLE) for s, q in pairs])

    def _share(self, hits: np.ndarray, rows: Int64[np.ndarray, " r"] | None = None) -> Estimate:
        clusters = self.clusters if rows is None else self.clusters[rows]
        chance = 1 / len(self.choices.answers)
        if self.chances is not None:
            chance = float((self.chances if rows is None else self.chances[rows]).mean())
        estimate = share_estimate if hits.dtype == bool else mean_estimate
        return estimate(hits, clusters, chance, self.config.bootstrap, self.config.seed)


def train_questions(folder: Path | None, most: int) -> list[Question]:
    """The questions of (at most so many records of) the train split of the dataset in `folder`; [] if there is none."""
    if folder is None or not most or not (folder / "dataset.json").is_file():
        return []
    split = Dataset.open(folder).splits.get("train")
    return [] if split is None else read_questions(split, choose_places(split, most)).asked


def _joined(parts: Sequence[Answered]) -> Answered:
    said = [s for part in parts for s in part.said]
    confident = [part.confidence for part in parts if part.confidence is not None]
    return Answered(said, np.concatenate(confident) if confident else None)


def _reasons(guesses: Sequence[Guess] | None) -> dict[str, int]:
    """How many questions the baseline answers by what."""
    found: dict[str, int] = {}
    for guess in guesses or ():
        found[guess.why] = found.get(guess.why, 0) + 1
    return found
