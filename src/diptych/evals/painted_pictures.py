"""Painted pictures: does another model find the right words for what was painted, and was it copied from training?"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, UInt8
from torch import Tensor

from diptych.core.errors import EvalError
from diptych.data.image_reader import ImageReader
from diptych.data.near_copies import (
    SIDE,
    Sketches,
    find_copies,
    miniature,
    nearest_vectors,
    perceptual_hash,
    read_sketches,
)
from diptych.evals.clip_score import open_scorer
from diptych.evals.eval import Estimate, Eval, EvalResult, some
from diptych.evals.items import item_table
from diptych.evals.open_data import open_data
from diptych.evals.painted import (
    Painted,
    PaintedConfig,
    choose_captioned,
    encoded,
    of_side,
    paint_captions,
    whole_pictures,
)
from diptych.evals.ranking import Matches, chance_median_rank, chance_recall
from diptych.evals.scoring import choose_places, dataset_folder, describe_broken, read_gallery, thumbnail
from diptych.evals.statistics import mean_estimate, median_estimate, share_estimate
from diptych.evals.vector_ranks import vector_ranks
from diptych.evals.written import dealt_out
from diptych.models.capabilities import require
from diptych.models.pretrained import Pretrained
from diptych.report.figures import Figure, Interval, Intervals, Picture, Pictures

OPENED: dict[tuple[str, str], Pretrained] = {}
"""Judges of this process by their words and device: a suite asks for the same one again and again."""

K = (1, 10)
MOST_BITS, TOLERANCE = 12, 0.2
"""What is a near copy, as in the memorisation eval."""

WAYS = {"": "painted", "real_": "the real pictures", "other_": "painted for another text"}


class PaintedPicturesConfig(PaintedConfig):
    """Settings of the painted_pictures eval."""

    judge: str = ""
    """The model that judges, which embeds images and words: a run's folder, openclip:PATH or hf:PATH."""

    quick: ClassVar[Mapping[str, Any] | None] = {"max_items": 100}
    full: ClassVar[Mapping[str, Any] | None] = {"max_items": 500}

    def unsuited(self, model: Pretrained, data: Any) -> str:
        """Also where no judge is named, or records have no captions."""
        if reason := super().unsuited(model, data):
            return reason
        captioned = sum(bool(data.captions(p)) for p in some(data))
        return "no judge is named (judge=RUN)" if not self.judge else "" if captioned > 1 else "no record has a caption"

    def build(self) -> "PaintedPictures":
        """The eval."""
        return PaintedPictures(self)


class PaintedPictures(Eval):
    """Every caption is painted, and a judge (another model, which embeds) ranks all the split's texts by each painted
    picture: recall at 1 and 10, median rank of the right text, and the cosine of picture and text.

    Beside it the same of the real pictures, which is as far as this judge sees, and of pictures that were painted for
    another text. A picture that was copied from training ranks well too, so the nearest training picture of each is
    looked for: by the judge's vectors (`nearest_training_cosine`, beside that of the real pictures), and near copies by
    their pixels (`near_copy_share`, see `near_copies`). Definitions: docs/reference/evals-painting.md.
    """

    needs: ClassVar[tuple[str, ...]] = ("generate_image",)
    headline: ClassVar[str] = "recall_at_1"

    def __init__(self, config: PaintedPicturesConfig) -> None:
        self.config = config

    def run(self, model: Pretrained, data: Any, artifacts: bool = True) -> EvalResult:
        """Evaluate `model` on the captioned split `data`."""
        config = self.config
        require(model.model, self.needs, "painted_pictures")
        judge = _judge(config.judge, model)
        reader = whole_pictures(model, data, config.batch_size)
        painted = paint_captions(model, reader, choose_captioned(data, config.max_items), config, "painted_pictures")
        train = _train_pictures(config, data, judge, painted)
        found = _Ranked(config, judge, data, painted, train)
        settings = {
            "images": len(painted.places),
            "distinct_captions": int(painted.clusters.max()) + 1,
            "judge_fingerprint": judge.fingerprint,
            "training_images": 0 if train is None else len(train.places),
            "broken_images": describe_broken(reader),
        }
        items = {"images": item_table(map(data.uid, painted.places), found.values(), painted.clusters)}
        return config.result(
            model,
            data,
            metrics=found.metrics(),
            settings=settings,
            items=items if artifacts else {},
            figures=found.figures() if artifacts else (),
        )


class _Training(NamedTuple):
    """The training pictures: of which split, where, their vectors by the judge, and their sketches."""

    split: Any
    places: list[int]
    vectors: Float[Tensor, "t e"]
    sketches: Sketches


class _Ranked:
    """The ranks of the right texts, the cosines, and what is nearest in training."""

    def __init__(
        self, config: PaintedPicturesConfig, judge: Pretrained, data: Any, painted: Painted, train: _Training | None
    ) -> None:
        self.config, self.data, self.painted, self.train = config, data, painted, train
        self.texts = list(dict.fromkeys(painted.captions))
        number = {t: n for n, t in enumerate(self.texts)}
        text_of = torch.tensor([number[c] for c in painted.captions])
        words = judge.embed_text(self.texts)
        self.vectors = {
            "": judge.embed_image(list(painted.painted)),
            "real_": judge.embed_image(list(painted.real)),
        }
        deal = dealt_out(painted.clusters, 1, config.seed)[0]
        self.vectors["other_"] = self.vectors[""][torch.from_numpy(deal)]
        matches = Matches.of(list(range(len(painted.captions))), [(c,) for c in painted.captions])
        self.gallery, self.right = len(matches.text_of), matches.right_texts().numpy()
        self.ranks, self.cosines = {}, {}
        for way, vectors in self.vectors.items():
            self.ranks[way] = vector_ranks(vectors, words, matches).i2t.numpy()
            self.cosines[way] = (vectors * words[text_of]).sum(1).double().numpy()
        self.nearest, self.copies = {}, {}
        if train is not None:
            pixels = {"": painted.painted, "real_": painted.real}
            for way, images in pixels.items():
                self.nearest[way] = nearest_vectors(self.vectors[way], train.vectors)
                self.copies[way] = find_copies(_sketches(images), train.sketches, MOST_BITS, TOLERANCE).near

    def metrics(self) -> dict[str, Estimate]:
        """Recall, median rank and mean cosine of each way; nearness to training pictures, painted and real."""
        how = {"samples": self.config.bootstrap, "seed": self.config.seed}
        clusters = self.painted.clusters
        found: dict[str, Estimate] = {}
        for way in WAYS:
            ranks = self.ranks[way]
            for k in K:
                chance = chance_recall(self.right, self.gallery, k)
                found[f"{way}recall_at_{k}"] = share_estimate(ranks <= k, clusters, chance, **how)
            chance = chance_median_rank(self.right, self.gallery)
            found[f"{way}median_rank"] = median_estimate(ranks, clusters, chance, **how)
            wrong = None if way else float(self.cosines["other_"].mean())
            found[f"{way}cosine"] = _mean(self.cosines[way], clusters, wrong, how)
        for way, (cosines, _) in self.nearest.items():
            found[f"{way}nearest_training_cosine"] = _mean(cosines, clusters, None, how)
            near = share_estimate(self.copies[way], clusters, None, **how)
            found[f"{way}near_copy_share"] = near.replace(higher_is_better=False)
        return found

    def values(self) -> dict[str, np.ndarray]:
        """What each picture brought to the metrics that are means."""
        values: dict[str, np.ndarray] = {}
        for way in WAYS:
            values |= {f"{way}recall_at_{k}": self.ranks[way] <= k for k in K} | {f"{way}cosine": self.cosines[way]}
        for way, (cosines, _) in self.nearest.items():
            values |= {f"{way}nearest_training_cosine": cosines, f"{way}near_copy_share": self.copies[way]}
        return values

    def figures(self) -> tuple[Figure, ...]:
        """Recall side by side, painted pictures with their texts, and those that lie nearest to a training picture."""
        metrics = self.metrics()
        rows = tuple(
            Interval(name=f"recall at {k}: {words}", value=e.value, low=e.low, high=e.high, chance=e.chance, n=e.n)
            for k in K
            for way, words in WAYS.items()
            for e in [metrics[f"{way}recall_at_{k}"]]
        )
        chosen = choose_places(self.painted.places, self.config.pictures) if self.config.pictures else []
        sheets: list[Figure] = [
            Intervals(
                title="The judge finds the text of a picture",
                words="Among all texts of the split. The real pictures show how far this judge sees.",
                rows=rows,
            ),
            Pictures(
                title="Painted pictures",
                words="Each with the text that it was painted for, and the rank of that text by the judge.",
                pictures=tuple(self._shown(i) for i in chosen),
            ),
        ]
        return (*sheets, *self._nearest_figures())

    def _shown(self, i: int) -> Picture:
        rank = self.ranks[""][i]
        return Picture(
            image=encoded(self.painted.painted[i]),
            caption=self.painted.captions[i],
            detail=f"rank {rank:g} of {self.gallery:,}",
            verdict="right" if rank <= 1 else "wrong",
        )

    def _nearest_figures(self) -> list[Figure]:
        if self.train is None or not self.config.pictures:
            return []
        cosines, rows = self.nearest[""]
        pairs: list[Picture] = []
        for i in np.argsort(-cosines, kind="stable")[: max(1, self.config.pictures // 4)].tolist():
            place = self.train.places[int(rows[i])]
            near = "near copy, " if self.copies[""][i] else ""
            pairs += [
                Picture(image=encoded(self.painted.painted[i]), caption=self.painted.captions[i], detail="painted"),
                Picture(
                    image=thumbnail(self.train.split, place),
                    caption=(*self.train.split.captions(place), "")[0],
                    detail=f"in training, {near}cosine {cosines[i]:.3f}",
                ),
            ]
        return [
            Pictures(
                title="Nearest to training",
                words="The painted pictures that lie nearest to a training picture by the judge, each with that one.",
                pictures=tuple(pairs),
            )
        ]


def _judge(words: str, model: Pretrained) -> Pretrained:
    if not words:
        raise EvalError(
            "painted_pictures must be told who judges; got no judge. Name one that embeds images and words, such as "
            "a run of clip:tiny: judge=RUN."
        )
    key = (words, str(model.device))
    judge = OPENED.get(key)
    if judge is None or judge.fingerprint == model.fingerprint:  # the latter is refused
        judge = OPENED[key] = open_scorer(words, model)
    return judge


def _train_pictures(config: PaintedPicturesConfig, data: Any, judge: Pretrained, painted: Painted) -> _Training | None:
    """The pictures that may have been copied; None where the split belongs to no data, or to some without a train
    split. Any other split must be there, being named."""
    folder = dataset_folder(config.data, data)
    if folder is None or data.name == config.train_split:
        return None
    source = open_data(config.data or folder)
    if config.train_split == "train" and "train" not in source.splits:
        return None
    split = source.split(config.train_split)
    if not len(split):
        return None
    places = choose_places(split, config.max_train)
    reader = ImageReader(split, judge.model.config.image_format, config.batch_size)
    gallery = read_gallery(judge, reader, places, "painted_pictures", True)
    assert gallery.vectors is not None
    sketches, _ = read_sketches(split, gallery.places)
    return _Training(split, gallery.places, gallery.vectors, sketches)


def _sketches(images: UInt8[Tensor, "n 3 s s"]) -> Sketches:
    small = of_side(images, SIDE)
    digests = [b"painted %d" % i for i in range(len(images))]  # no bytes of a file, so equal to none
    return Sketches(list(range(len(images))), digests, perceptual_hash(small), miniature(small))


def _mean(
    values: Float64[np.ndarray, " n"],
    clusters: Int64[np.ndarray, " n"],
    chance: float | None,
    how: Mapping[str, int],
) -> Estimate:
    """The mean of cosines: equal ones, which resampling cannot tell apart, within 0..1."""
    shifted = mean_estimate((1 + values.clip(-1, 1)) / 2, clusters, None, **how)
    low, high = 2 * shifted.low - 1, 2 * shifted.high - 1
    mean = float(values.mean())
    return Estimate(value=mean, low=min(low, mean), high=max(high, mean), chance=chance, n=shifted.n)
