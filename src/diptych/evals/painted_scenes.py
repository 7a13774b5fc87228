"""Painted scenes: are the shapes, colours, numbers and relations on a painted picture those of its caption?"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64, Int64
from pydantic import Field

from diptych.core.errors import DiptychError, EvalError
from diptych.data.scene_words import NUMBERS, Thing, listed, phrase
from diptych.evals.eval import Estimate, Eval, EvalResult, some
from diptych.evals.items import item_table
from diptych.evals.nearest_captions import Nearest, nearest_captions
from diptych.evals.open_data import open_data
from diptych.evals.painted import Painted, PaintedConfig, choose_captioned, encoded, paint_captions, whole_pictures
from diptych.evals.scene_detector_training import DetectorConfig, detector_for
from diptych.evals.scene_facts import FACTS, Verdict, is_scene, judge
from diptych.evals.scoring import choose_places, dataset_folder, describe_broken
from diptych.evals.statistics import mean_estimate, paired_difference, share_estimate
from diptych.evals.written import dealt_out
from diptych.models.capabilities import require
from diptych.models.pretrained import Pretrained
from diptych.report.figures import Figure, Interval, Intervals, Picture, Pictures

DEALS = 5
"""How often painted pictures are dealt out to wrong captions, to find what chance reaches."""

WAYS = {"": "painted", "real_": "the real pictures", "copy_": "copied from training"}


class PaintedScenesConfig(PaintedConfig):
    """Settings of the painted_scenes eval."""

    detector: DetectorConfig = Field(default=DetectorConfig())
    """How the detector learns; it is kept, and learned once for some data and side of pictures."""

    quick: ClassVar[Mapping[str, Any] | None] = {"max_items": 100}
    full: ClassVar[Mapping[str, Any] | None] = {"max_items": 500}

    def unsuited(self, model: Pretrained, data: Any) -> str:
        """Also where records are no scenes, or there is no other split to learn a detector from."""
        if reason := super().unsuited(model, data):
            return reason
        if not any(is_scene(data.meta(p)) for p in some(data)):
            return "its records are no generated scenes"
        try:
            _learned_from(self, data)
        except DiptychError:
            return f"there is no split {self.train_split!r} to learn a detector from"
        return ""

    def build(self) -> "PaintedScenes":
        """The eval."""
        return PaintedScenes(self)


class PaintedScenes(Eval):
    """The share of what a caption says that a detector finds on the picture painted for it: object, colour, count,
    relation, size, background, the words in it (`scene_facts`), and of captions of which all is true and nothing else
    is there. The caption is the record's first and fullest.

    The detector knows only real pictures (`scene_detector`); `detector_accuracy` is the share of held-out ones that it
    reads without a mistake. Three things stand beside: the same on the real pictures (the ceiling that the detector
    leaves), on the picture of the training record whose caption is equal or nearest (copying is easy where captions
    repeat), and chance, which is what the painted pictures reach when they are dealt out to wrong captions.
    Definitions: docs/reference/evals-painting.md.
    """

    needs: ClassVar[tuple[str, ...]] = ("generate_image",)
    headline: ClassVar[str] = "facts_accuracy"

    def __init__(self, config: PaintedScenesConfig) -> None:
        self.config = config

    def run(self, model: Pretrained, data: Any, artifacts: bool = True) -> EvalResult:
        """Evaluate `model` on the split `data` of scenes."""
        config = self.config
        require(model.model, self.needs, "painted_scenes")
        source = _learned_from(config, data)
        places = [p for p in choose_captioned(data, config.max_items) if is_scene(data.meta(p))]
        if len(places) < 2:
            raise EvalError(
                f"painted_scenes must be given at least 2 scenes; got {len(places)} in {data.name}. Take the corpus "
                "scenes, whose records say what was drawn."
            )
        reader = whole_pictures(model, data, config.batch_size)
        painted = paint_captions(model, reader, places, config, "painted_scenes")
        trained = detector_for(source, config.train_split, reader.format.resolution, config.detector, model.device)
        learn = source.split(config.train_split)
        known = choose_captioned(learn, config.max_train)
        nearest = nearest_captions(painted.captions, [learn.captions(p)[0] for p in known])
        copies = whole_pictures(model, learn, config.batch_size)
        wanted = [known[i] for i in nearest.place.tolist()]
        seen = {p: i for b in copies.batches(sorted({*wanted})) for p, i in zip(b.places, b.images, strict=True)}
        found = _Read(
            config,
            painted,
            [data.meta(p) for p in painted.places],
            trained.detector.read(painted.painted),
            trained.detector.read(painted.real),
            [trained.detector.read(seen[p][None])[0] if p in seen else None for p in wanted],
            nearest,
        )
        metrics = found.metrics() | {"detector_accuracy": trained.accuracy}
        first = {self.headline: metrics[self.headline]}  # the page leads with it
        settings = {
            "images": len(painted.places),
            "distinct_captions": int(painted.clusters.max()) + 1,
            "side": reader.format.resolution,
            "detector_learned_from": trained.scenes,
            "captions_also_in_training": int(nearest.equal.sum()),
            "training_captions": len(known),
            "broken_images": describe_broken(reader),
        }
        items = {"images": item_table(map(data.uid, painted.places), found.values(), painted.clusters)}
        return config.result(
            model,
            data,
            metrics=first | metrics,
            settings=settings,
            items=items if artifacts else {},
            figures=found.figures() if artifacts else (),
        )


class _Read:
    """What the detector read on the painted, the real and the copied pictures, held against the captions."""

    def __init__(
        self,
        config: PaintedScenesConfig,
        painted: Painted,
        metas: Sequence[Mapping[str, Any]],
        read: list[dict[str, Any]],
        real: list[dict[str, Any]],
        copied: list[dict[str, Any] | None],
        nearest: Nearest,
    ) -> None:
        self.config, self.painted, self.metas, self.read, self.nearest = config, painted, metas, read, nearest
        nothing: dict[str, Any] = {"objects": [], "relations": [], "background": ""}
        sides = {"": read, "real_": real, "copy_": [c or nothing for c in copied]}
        self.verdicts = {way: self._judged(scenes) for way, scenes in sides.items()}
        deals = dealt_out(painted.clusters, DEALS, config.seed)
        self.dealt = [self._judged([read[i] for i in deal.tolist()]) for deal in deals]

    def metrics(self) -> dict[str, Estimate]:
        """Each fact's accuracy over claims, a caption's mean over its facts, and captions wholly right: painted, real
        and copied; and what is gained over copying (paired)."""
        how = {"samples": self.config.bootstrap, "seed": self.config.seed}
        clusters = self.painted.clusters
        found: dict[str, Estimate] = {}
        for way, verdicts in self.verdicts.items():
            dealt = self.dealt if not way else []
            for fact in FACTS:
                hits, owners = _claims(verdicts, fact)
                if len(hits):
                    chance = float(np.mean([_claims(d, fact)[0].mean() for d in dealt])) if dealt else None
                    found[f"{way}{fact}_accuracy"] = mean_estimate(hits, clusters[owners], chance, **how)
            chance = float(np.mean([_facts(d).mean() for d in dealt])) if dealt else None
            found[f"{way}facts_accuracy"] = mean_estimate(_facts(verdicts), clusters, chance, **how)
            chance = float(np.mean([_all_right(d).mean() for d in dealt])) if dealt else None
            found[f"{way}all_facts_accuracy"] = share_estimate(_all_right(verdicts), clusters, chance, **how)
        test = paired_difference(
            _facts(self.verdicts[""]), _facts(self.verdicts["copy_"]), clusters, seed=self.config.seed
        )
        found["facts_gain_over_copy"] = Estimate(
            value=test.difference, low=test.low, high=test.high, chance=0.0, n=test.n
        )
        return found

    def values(self) -> dict[str, np.ndarray]:
        """What each picture brought to the metrics that are means over pictures."""
        values: dict[str, np.ndarray] = {}
        for way, verdicts in self.verdicts.items():
            values[f"{way}facts_accuracy"] = _facts(verdicts)
            values[f"{way}all_facts_accuracy"] = _all_right(verdicts)
        values["facts_gain_over_copy"] = values["facts_accuracy"] - values["copy_facts_accuracy"]
        return values

    def figures(self) -> tuple[Figure, ...]:
        """The facts side by side, and painted pictures with what was read on them."""
        metrics = self.metrics()
        rows = [
            Interval(name=f"{name}: {words}", value=e.value, low=e.low, high=e.high, chance=e.chance, n=e.n)
            for fact in ("facts", "all_facts", *FACTS)
            for way, words in WAYS.items()
            if (e := metrics.get(f"{way}{fact}_accuracy"))
            for name in [{"facts": "all claims", "all_facts": "wholly right"}.get(fact, fact)]
        ]
        first = choose_places(self.painted.places, self.config.pictures) if self.config.pictures else []
        shown = tuple(
            Picture(
                image=encoded(self.painted.painted[i]),
                caption=self.painted.captions[i],
                detail=f"seen: {in_words(self.read[i])}",
                verdict="right" if self.verdicts[""][i].all_right else "wrong",
            )
            for i in first
        )
        return (
            Intervals(
                title="What captions say, and what is on the pictures",
                words="The share of claims that the detector finds true. The real pictures show what it can read at "
                "all; copied: the picture of the training record with the nearest caption; the mark is what the "
                "painted pictures reach with wrong captions.",
                rows=tuple(rows),
            ),
            Pictures(
                title="Painted scenes", words="Each with its caption and what the detector reads.", pictures=shown
            ),
        )

    def _judged(self, scenes: Sequence[Mapping[str, Any]]) -> list[Verdict]:
        return [judge(c, s) for c, s in zip(self.painted.captions, scenes, strict=True)]


def in_words(scene: Mapping[str, Any]) -> str:
    """What a scene holds, as a caption would say it."""
    things = [
        phrase(Thing(o["shape"], o["colour"], o["size"], (), o["word"]), count=min(len(o["boxes"]), len(NUMBERS) - 1))
        for o in scene["objects"]
    ]
    return f"{listed(things) if things else 'nothing'} on {scene['background']}"


def _claims(verdicts: Sequence[Verdict], fact: str) -> tuple[Float64[np.ndarray, " c"], Int64[np.ndarray, " c"]]:
    """Every claim of a fact, 1 or 0, and whose picture's it is."""
    claimed = np.array([v.claimed[fact] for v in verdicts], dtype=np.int64)
    hits = [np.repeat((1.0, 0.0), (v.true[fact], v.claimed[fact] - v.true[fact])) for v in verdicts]
    return np.concatenate([np.zeros(0), *hits]), np.repeat(np.arange(len(verdicts)), claimed)


def _facts(verdicts: Sequence[Verdict]) -> Float64[np.ndarray, " n"]:
    """The share of each caption's claims that are true."""
    return np.array([sum(v.true.values()) / max(1, sum(v.claimed.values())) for v in verdicts])


def _all_right(verdicts: Sequence[Verdict]) -> np.ndarray:
    return np.array([v.all_right for v in verdicts], dtype=bool)


def _learned_from(config: PaintedScenesConfig, data: Any) -> Any:
    """The data whose train split the detector learns from, opened. Raises EvalError where that one is judged."""
    folder = dataset_folder(config.data, data)
    if folder is None:
        raise EvalError(
            f"painted_scenes must know the data whose split {config.train_split!r} its detector is to learn from; got "
            "a split that belongs to none. Name it: data=DIR."
        )
    source = open_data(config.data or folder)
    source.split(config.train_split)  # an error that says which there are, before anything is painted
    if data.name == config.train_split:
        raise EvalError(
            f"painted_scenes must be judged on other scenes than its detector learns from; got the split {data.name!r} "
            "for both. Name one of them: split=test or train_split=train."
        )
    return source
