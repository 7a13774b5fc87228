"""POPE: is such a thing in the picture, yes or no? A model that says yes to what is not there sees things.

Li et al., "Evaluating object hallucination in large vision-language models", arXiv:2305.10355.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Int64
from pydantic import Field

from diptych.core.errors import EvalError
from diptych.data.image_reader import ImageReader
from diptych.evals.eval import Eval, EvalConfig, EvalResult, some
from diptych.evals.object_questions import CATEGORIES, Scenery, object_questions, worded
from diptych.evals.object_words import ObjectWords, objects_of, vocabulary
from diptych.evals.questions import Question, plain, read_questions
from diptych.evals.scene_facts import is_scene
from diptych.evals.scoring import (
    PairScoringConfig,
    blank_images,
    choose_places,
    choose_scoring,
    describe_broken,
    distinct,
)
from diptych.evals.statements import weigh_statements
from diptych.evals.written import captions_of
from diptych.evals.yes_no import Parser
from diptych.evals.yes_no_scores import Replies, YesNoScores
from diptych.models.capabilities import require
from diptych.models.pretrained import Pretrained

SCENE_TEMPLATE = "is there {a}?"
TEMPLATE = "Is there {a} in the image?"
AFFIRMED, DENIED = "there is {a}", "there is no {object}"
"""What is scored instead of questions."""
ANSWERS = ("yes", "no")


class PopeConfig(PairScoringConfig):
    """Settings of POPE."""

    questions: Literal["auto", "given", "made"] = "auto"
    """"given": those of the data that are answered yes or no. "made": of the objects that the meta names (or that a
    scene holds). "auto": the data's own, if they are written into its records, else made ones."""
    template: str = ""
    """The words of questions that are made, with {a} (an object with its article) or {object}; empty: POPE's, of scenes
    those of the corpus."""
    per_image: int = Field(3, ge=1)
    """At most so many objects that are there, and as many that are not, are asked for a picture and category."""
    asked_by: Literal["writing", "answers", "statements"] = "writing"
    """"writing": the model writes its answer, as POPE has it. "answers": the more probable of "yes" and "no", so that
    nothing has to be read out of words. "statements": nothing is asked; "there is a dog" is scored against "there is no
    dog", for models that do not write (`scored_by` and what follows it say how)."""
    parser: Parser = "original"
    """Which program's reading of the answers the metrics follow; the other's accuracy and F1 stand beside."""
    max_tokens: int = Field(16, ge=0)
    blind: bool = True
    """Ask the same of the model when it is shown a blank image."""
    batch_size: int = Field(32, ge=1)
    bootstrap: int = Field(1000, ge=100)
    seed: int = 0
    pictures: int = Field(24, ge=0)

    quick: ClassVar[Mapping[str, Any] | None] = {"max_items": 200}
    full: ClassVar[Mapping[str, Any] | None] = {"max_items": 1500}

    def unsuited(self, model: Pretrained, data: Any) -> str:
        """Also where there are neither questions with yes or no nor objects to make them of."""
        pairs = self.asked_by == "statements"
        reason = super().unsuited(model, data) if pairs else EvalConfig.unsuited(self, model, data)
        asked = ask_of(data, some(data), self).asked
        lacking = "" if asked else "its records hold no questions with yes or no, and its meta names no objects"
        return reason or lacking

    def build(self) -> "Pope":
        """The eval."""
        return Pope(self)


class Asked(NamedTuple):
    """Questions with yes or no, and where they are from. `denials`: by statement that something is there, the one that
    it is not."""

    asked: list[Question]
    source: str
    denials: dict[str, str] = {}  # noqa: RUF012  (a NamedTuple's default, never changed)


class Pope(Eval):
    """Accuracy, precision, recall and F1 (yes is positive) of answers to questions whether something is in a picture,
    the share of yes, and how many answers say neither; with intervals over images, whole and by category.

    Chance is what the more frequent answer reaches: a half where questions are made. A model that always says yes has
    a recall of 1 and an F1 of 2/3 all the same, which is the chance level of F1.
    """

    needs: ClassVar[tuple[str, ...]] = ("generate_text",)
    headline: ClassVar[str] = "accuracy"

    def __init__(self, config: PopeConfig) -> None:
        self.config = config

    def run(self, model: Pretrained, data: Any, artifacts: bool = True) -> EvalResult:
        """Evaluate `model` on the split `data`."""
        config = self.config
        by_statements = config.asked_by == "statements"
        scoring = choose_scoring(model, config, "pope") if by_statements else None
        if scoring is None:
            require(model.model, self.needs, "pope")
        places = choose_places(data, config.max_items)
        found = ask_of(data, places, config)
        if not found.asked:
            raise EvalError(
                f"pope must be given questions with the answer yes or no, or objects in the meta; got neither among "
                f"{len(places)} records of {data.name} (questions={config.questions}). Take POPE's own files, COCO's "
                "instances, or a corpus that has them (scenes)."
            )
        reader = ImageReader(data, model.model.config.image_format, config.batch_size)
        blind = None
        if scoring is not None:
            weighed = weigh_statements(model, reader, found.asked, found.denials, scoring)
            asked, said, clusters = weighed.asked, weighed.said, distinct(weighed.hashes)
        else:
            asked, said, clusters = self._look(model, reader, found.asked)
            blind = self._blind(model, reader, asked) if config.blind else None
        scores = YesNoScores(Replies(asked, said, blind, clusters), config.parser, config.bootstrap, config.seed)
        settings = {
            "questions_from": found.source,
            **({} if scoring is None else {"scored_by": scoring.by}),
            "questions_asked": len(asked),
            "answered_yes_in_truth": sum(t == "yes" for t in scores.truth),
            "images": len(np.unique(clusters)),
            "broken_images": describe_broken(reader),
        }
        return config.result(
            model,
            data,
            metrics=scores.metrics(),
            settings=settings,
            items=scores.items(data) if artifacts else {},
            figures=scores.figures(data, config.pictures) if artifacts else (),
        )

    def _look(
        self, model: Pretrained, reader: ImageReader, asked: Sequence[Question]
    ) -> tuple[list[Question], list[str], Int64[np.ndarray, " q"]]:
        """The questions whose image can be read, what is said to them, and which image each is about."""
        of_place: dict[int, list[Question]] = {}
        for q in asked:
            of_place.setdefault(q.place, []).append(q)
        kept: list[Question] = []
        said: list[str] = []
        hashes: list[bytes] = []
        for batch in reader.batches(list(of_place)):
            pairs = dict.fromkeys((n, q.question) for n, place in enumerate(batch.places) for q in of_place[place])
            answers = self._answer(model, batch.images, [q for _, q in pairs], [n for n, _ in pairs])
            told = dict(zip(pairs, answers, strict=True))  # what is asked in several categories is asked once
            for n, place in enumerate(batch.places):
                kept += of_place[place]
                said += [told[n, q.question] for q in of_place[place]]
                hashes += [batch.hashes[n]] * len(of_place[place])
        if not kept:
            raise EvalError(
                f"pope must be given at least one readable image; got {len(reader.broken)} broken ones. "
                "Look at the split with: diptych inspect"
            )
        return kept, said, distinct(hashes)

    def _blind(self, model: Pretrained, reader: ImageReader, asked: Sequence[Question]) -> list[str]:
        """What the model says when it is shown nothing: equal questions are asked once."""
        texts = list(dict.fromkeys(q.question for q in asked))
        answers = self._answer(model, blank_images(reader.format, 1), texts, [0] * len(texts))
        told = dict(zip(texts, answers, strict=True))
        return [told[q.question] for q in asked]

    def _answer(self, model: Pretrained, images: Any, questions: Sequence[str], image_of: Sequence[int]) -> list[str]:
        if self.config.asked_by == "writing":
            return model.generate(images, questions, image_of, max_tokens=self.config.max_tokens)
        best = model.answer_log_likelihoods(images, questions, ANSWERS, image_of).argmax(1)
        return [ANSWERS[i] for i in best.tolist()]


def ask_of(split: Any, places: Sequence[int], config: PopeConfig) -> Asked:
    """The questions of the records at `places`, or those made of their objects, as the settings say; or statements."""
    by_statements = config.asked_by == "statements"
    if config.questions != "made" and not by_statements:
        found = read_questions(split, places)
        given = [_in_category(split, q) for q in found.asked if plain(q.answer) in ANSWERS]
        if given and (config.questions == "given" or "segments" in found.source):
            return Asked(given, f"the data's own ({found.source})")
        if config.questions == "given":
            return Asked([], "")
    known = {p: objects for p in places if (objects := objects_of(split.meta(p))) is not None}
    if not any(known.values()):
        return Asked([], "")
    scenes = is_scene(split.meta(next(iter(known))))
    names = vocabulary(list(known.values()), scenes)
    words = ObjectWords(names)
    pictures = [
        Scenery(
            p,
            split.uid(p),
            tuple(objects),
            frozenset() if scenes else frozenset(m for text in captions_of(split, p) for m in words.mentions(text)),
        )
        for p, objects in known.items()
    ]
    template = config.template or (SCENE_TEMPLATE if scenes else TEMPLATE)
    template = (config.template or AFFIRMED) if by_statements else template
    denials = {worded(template, n): worded(DENIED, n) for n in names}
    return Asked(
        object_questions(pictures, names, template, config.per_image, config.seed), f"made: {template}", denials
    )


def _in_category(split: Any, q: Question) -> Question:
    """A question with its category: what its kind or its record's meta says."""
    category = split.meta(q.place).get("category")
    return q._replace(answer=plain(q.answer), sort=q.sort if q.sort in CATEGORIES else str(category or q.sort))
