"""CHAIR: does a model write of objects that are not in the picture? And does it name those that are?

Rohrbach et al., "Object hallucination in image captioning", arXiv:1809.02156, section 3.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float64
from pydantic import Field

from diptych.core.errors import EvalError
from diptych.core.seeds import numpy_generator
from diptych.data.image_reader import ImageReader
from diptych.evals.eval import Estimate, Eval, EvalConfig, EvalResult, some
from diptych.evals.items import item_table
from diptych.evals.object_words import ObjectWords, objects_of, read_synonyms, vocabulary
from diptych.evals.scene_facts import is_scene
from diptych.evals.scoring import choose_places, describe_broken, thumbnail
from diptych.evals.statistics import mean_estimate, share_estimate
from diptych.evals.sums import Resampling, quotient, sums_estimate
from diptych.evals.written import Written, captions_of, dealt_out, write_captions
from diptych.models.capabilities import require
from diptych.models.pretrained import Pretrained
from diptych.report.figures import Figure, Interval, Intervals, Picture, Pictures, Words

DEALS = 5
"""How often captions are dealt out to wrong images, to find what chance reaches."""


class ChairConfig(EvalConfig):
    """Settings of CHAIR. Captions are written as by the captioning eval."""

    synonyms: str = ""
    """A text file with an object and other words for it a line: ``person, man, woman``; empty: names and their plurals
    alone, which overlooks objects under other words (of COCO, take the list that CHAIR's authors give)."""
    prompt: str = ""
    beams: int = Field(1, ge=1)
    max_tokens: int = Field(0, ge=0)
    batch_size: int = Field(64, ge=1)
    bootstrap: int = Field(1000, ge=100)
    seed: int = 0
    pictures: int = Field(24, ge=0)
    """How many captions with objects that are not there go into the report."""

    quick: ClassVar[Mapping[str, Any] | None] = {"max_items": 300}
    full: ClassVar[Mapping[str, Any] | None] = {"max_items": 5000}

    def unsuited(self, model: Pretrained, data: Any) -> str:
        """Also where the records' meta does not say which objects are in the pictures."""
        known = [objects_of(data.meta(p)) for p in some(data)]
        lacking = "" if any(known) else "its meta names no objects"
        return super().unsuited(model, data) or lacking

    def build(self) -> "Chair":
        """The eval."""
        return Chair(self)


class Named(NamedTuple):
    """By image: how many mentions of objects a caption has, how many of them are of none that is there, and the share
    of the objects in the picture that it names (NaN where there is none)."""

    mentions: Float64[np.ndarray, " n"]
    false: Float64[np.ndarray, " n"]
    recall: Float64[np.ndarray, " n"]


class Chair(Eval):
    """CHAIRs, the share of captions that name an object which is not there, and CHAIRi, the share of all mentions of
    objects that do; and how many of the objects that are there get named, since who says nothing invents nothing.

    An image's objects are those that its meta names and those that people name in its captions. Chance is what the
    model's own captions reach when they are dealt out to wrong images: who always says the same stays at it.
    """

    needs: ClassVar[tuple[str, ...]] = ("generate_text",)
    headline: ClassVar[str] = "chair_s"
    best: ClassVar[float] = 0.0

    def __init__(self, config: ChairConfig) -> None:
        self.config = config

    def run(self, model: Pretrained, data: Any, artifacts: bool = True) -> EvalResult:
        """Evaluate `model` on the split `data`, whose records' meta must name objects."""
        config = self.config
        require(model.model, self.needs, "chair")
        places = choose_places(data, config.max_items)
        known = {p: objects for p in places if (objects := objects_of(data.meta(p))) is not None}
        if not any(known.values()):
            raise EvalError(
                f"chair must be given records whose meta names objects; got none among {len(places)} of {data.name}. "
                "Take a corpus that has them (scenes), or COCO's instances beside its captions."
            )
        names = vocabulary(list(known.values()), is_scene(data.meta(next(iter(known)))))
        words = ObjectWords(names, read_synonyms(config.synonyms) if config.synonyms else None)
        reader = ImageReader(data, model.model.config.image_format, config.batch_size)
        written = write_captions(
            model,
            reader,
            {p: captions_of(data, p) for p in known},
            config.prompt,
            blind=False,
            who="chair",
            beams=config.beams,
            max_tokens=config.max_tokens,
        )
        told = Told(written, [known[p] for p in written.places], words, config)
        settings = {
            "images": len(written.places),
            "objects": len(words.names),
            "objects_in_a_picture": round(float(np.mean([len(t) for t in told.truth])), 2),
            "mentions": int(told.named.mentions.sum()),
            "captions_without_objects": int((told.named.mentions == 0).sum()),
            "images_without_peoples_captions": sum(not texts for texts in written.references),
            "images_without_objects_in_meta": len(places) - len(known),
            "broken_images": describe_broken(reader),
        }
        items = {"images": item_table(map(data.uid, written.places), told.values(), written.clusters)}
        return config.result(
            model,
            data,
            metrics=told.metrics(),
            settings=settings,
            items=items if artifacts else {},
            figures=told.figures(data) if artifacts else (),
        )


class Told:
    """Captions held against the objects that are in the pictures."""

    def __init__(
        self, written: Written, objects: Sequence[Sequence[str]], words: ObjectWords, config: ChairConfig
    ) -> None:
        self.written, self.config = written, config
        by_people = [{m for text in texts for m in words.mentions(text)} for texts in written.references]
        self.truth = [set(there) | said for there, said in zip(objects, by_people, strict=True)]
        self.mentions = [words.mentions(c) for c in written.captions]
        self.named = self._held(self.mentions)
        self.dealt = [
            self._held([self.mentions[i] for i in deal.tolist()])
            for deal in dealt_out(written.clusters, DEALS, config.seed)
        ]

    def metrics(self) -> dict[str, Estimate]:
        """CHAIRs, CHAIRi, the recall of objects, and how many are mentioned, each with its interval and chance."""
        how = {"samples": self.config.bootstrap, "seed": self.config.seed}
        clusters, named, known = self.written.clusters, self.named, ~np.isnan(self.named.recall)
        recall = float(np.mean([d.recall[known].mean() for d in self.dealt]))
        sentences = float(np.mean([(d.false > 0).mean() for d in self.dealt]))
        rates = [_rate(_sums(d).sum(0, keepdims=True))[0] for d in self.dealt]
        return {
            "chair_s": share_estimate(named.false > 0, clusters, sentences, **how).replace(higher_is_better=False),
            "chair_i": sums_estimate(
                _sums(named),
                _rate,
                clusters,
                None if np.isnan(rates).any() else float(np.mean(rates)),
                Resampling(self.config.bootstrap, self.config.seed, "chair_i"),
                higher_is_better=False,
            ),
            "object_recall": mean_estimate(named.recall[known], clusters[known], recall, **how),
            "captions_with_objects_share": share_estimate(named.mentions > 0, clusters, **how),
        }

    def values(self) -> dict[str, np.ndarray]:
        """What each image brought. CHAIRi, a quotient of sums, is no mean; recall is one of images with objects."""
        values: dict[str, np.ndarray] = {
            "chair_s": self.named.false > 0,
            "captions_with_objects_share": self.named.mentions > 0,
        }
        return values | ({} if np.isnan(self.named.recall).any() else {"object_recall": self.named.recall})

    def figures(self, split: Any) -> tuple[Figure, ...]:
        """The metrics beside chance, objects by how often they are invented, and captions with such ones."""
        metrics = self.metrics()
        rows = tuple(
            Interval(name=name.replace("_", " "), value=e.value, low=e.low, high=e.high, chance=e.chance, n=e.n)
            for name, e in metrics.items()
        )
        return (
            Intervals(
                title="Invented and named objects",
                words="CHAIRs: captions with an object that is not there. CHAIRi: mentions of such objects. Both are "
                "better when lower; the mark is what the same captions reach of wrong pictures.",
                rows=rows,
            ),
            self._by_object(),
            Pictures(title="Captions with objects that are not there", pictures=self._pictures(split)),
        )

    def _by_object(self) -> Words:
        said = Counter(m for each in self.mentions for m in each)
        false = Counter(
            m for each, truth in zip(self.mentions, self.truth, strict=True) for m in each if m not in truth
        )
        there = Counter(o for truth in self.truth for o in truth)
        found = Counter(o for each, truth in zip(self.mentions, self.truth, strict=True) for o in set(each) & truth)
        order = sorted(there.keys() | said.keys(), key=lambda o: (-false[o], -said[o], o))
        return Words(
            title="By object",
            words="How often each object is mentioned, how often it is not there, and in how many of the pictures "
            "with it the captions name it.",
            head=("object", "mentioned", "not there", "share", "pictures", "named in"),
            rows=tuple(
                (
                    o,
                    str(said[o]),
                    str(false[o]),
                    f"{false[o] / said[o]:.1%}" if said[o] else "-",
                    str(there[o]),
                    f"{found[o] / there[o]:.1%}" if there[o] else "-",
                )
                for o in order
            ),
            numeric=(1, 2, 3, 4, 5),
        )

    def _pictures(self, split: Any) -> tuple[Picture, ...]:
        wrong = np.flatnonzero(self.named.false > 0)
        wrong = numpy_generator(self.config.seed, "chair_shown").permutation(wrong)[: self.config.pictures]
        return tuple(
            Picture(
                image=thumbnail(split, self.written.places[i]),
                caption=self.written.captions[i] or "(nothing)",
                detail="not there: " + ", ".join(dict.fromkeys(m for m in self.mentions[i] if m not in self.truth[i])),
                verdict="wrong",
            )
            for i in wrong.tolist()
        )

    def _held(self, mentions: Sequence[Sequence[str]]) -> Named:
        rows = []
        for each, truth in zip(mentions, self.truth, strict=True):
            recall = len(set(each) & truth) / len(truth) if truth else float("nan")
            rows.append((len(each), sum(m not in truth for m in each), recall))
        said, false, recalled = np.array(rows, dtype=np.float64).reshape(-1, 3).T
        return Named(said, false, recalled)


def _sums(named: Named) -> Float64[np.ndarray, "n 2"]:
    return np.stack([named.false, named.mentions], 1)


def _rate(sums: Float64[np.ndarray, "s 2"]) -> Float64[np.ndarray, " s"]:
    return quotient(sums[:, 0], sums[:, 1])
