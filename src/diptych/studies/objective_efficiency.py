"""Which objective learns most from a sample: predicting the caption, its words in no order, or which caption it is?

CLIP's figure 2 (Radford et al., 2021, arXiv:2103.00020) on data that anybody can fetch: a transformer captioner, a bag
of words and the contrastive objective, with the same image tower, data, order of samples, batch, optimizer and rate.
The paper found the bag of words three times as efficient as the captioner, and the contrastive one another four times.

The rate is constant, so that each run is also the beginning of a longer one: it is measured, and goes on.
"""

import json
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from diptych.checkpoints.native import load
from diptych.core.config import to_dict
from diptych.core.errors import ConfigError
from diptych.core.files import write_json
from diptych.data.corpora.corpus import corpus, get
from diptych.data.dataset import Dataset
from diptych.data.image_reader import ImageReader
from diptych.data.loader import LoaderConfig
from diptych.data.mixture import Part
from diptych.data.ready import packed
from diptych.evals.scoring import ScoredItems, Scoring, blank_images, choose_places
from diptych.models.pretrained import Pretrained
from diptych.objectives.contrastive import ContrastiveConfig
from diptych.recipes import bag_of_words, captioner, clip
from diptych.report.log_curves import Curve, log_curves
from diptych.studies.samples_to_reach import Factor, factor
from diptych.studies.study import Cell, Report, Results, Study, StudyConfig
from diptych.train.config import RunConfig, TrainConfig
from diptych.train.loop import train

Objective = Literal["captioner", "bag_of_words", "contrastive"]
OBJECTIVES: tuple[Objective, ...] = ("captioner", "bag_of_words", "contrastive")
COMPARED: tuple[tuple[Objective, Objective], ...] = (
    ("bag_of_words", "captioner"),
    ("contrastive", "bag_of_words"),
    ("contrastive", "captioner"),
)
TITLES = {
    "captioner": "transformer captioner",
    "bag_of_words": "bag of words",
    "contrastive": "contrastive",
}
METRICS = {"zero_shot": "zero-shot accuracy", "recall_at_1": "text-to-image R@1", "recall_at_10": "text-to-image R@10"}
CORPORA = ("emoji", "openclipart")
CONTEXT = 24
"""Tokens of a caption, with which a source that is not packed is packed."""
SIDE = 64
"""Pixels to which a corpus's larger pictures are packed for this: twice what the towers look at."""


class ObjectiveEfficiencyConfig(StudyConfig):
    """Settings of the study.

    data         packed datasets; the first one's held-out split is what is judged on, and its tokenizer all use. Empty:
                 the corpora emoji, judged on an artist whom no run has seen, and openclipart
    split        which split of the first is judged on; empty: val, or else test, for the corpora test
    items        how many of its pictures, each with a caption of its own: the names that zero-shot chooses among
    samples_seen the longest run; the others are a half, a quarter, ... of it
    points       how many lengths there are
    width        of the decoder and the text tower, and depth and heads
    """

    split: str = ""
    items: int = Field(default=256, ge=2)
    samples_seen: int = Field(default=200_000, gt=0)
    points: int = Field(default=8, ge=1)
    global_batch: int = Field(default=256, ge=2)
    lr: float = Field(default=1e-3, gt=0)
    warmup_samples: int = Field(default=5_120, ge=0)
    weight_decay: float = Field(default=0.2, ge=0)
    widths: tuple[int, ...] = (32, 64, 128, 256)
    width: int = Field(default=192, gt=0)
    depth: int = Field(default=1, ge=1)
    heads: int = Field(default=3, ge=1)
    workers: int = Field(default=-1, ge=-1)
    bootstrap: int = Field(default=1000, ge=10)

    def build(self) -> "ObjectiveEfficiency":
        """The study."""
        return ObjectiveEfficiency(self)


class ObjectiveEfficiency(Study):
    """A cell is an objective and a seed: one run, measured at `points` lengths.

    Zero-shot: which of `items` names is a picture's (chance 1 / items); retrieval: which picture is a name's. Both are
    read off one matrix of scores: cosines, log p(caption | picture), or the mean log p of its words. The scores are
    taken as they are, and less those of a blank picture, since a captioner's are mostly about how common a name is; the
    way that serves an objective better at the end is reported of it. A tie with the right answer counts as a miss.
    """

    summary: ClassVar[str] = (
        "captioner, bag of words and contrastive: samples to the same zero-shot accuracy (CLIP, fig. 2)"
    )
    config: ObjectiveEfficiencyConfig

    def __init__(self, config: ObjectiveEfficiencyConfig) -> None:
        self.config = config
        self._paths: list[str] = []

    @property
    def lengths(self) -> list[int]:
        """Samples seen at each point, in whole batches, ascending."""
        c = self.config
        found = [c.samples_seen / 2**i for i in range(c.points)]
        return sorted({max(1, round(n / c.global_batch)) * c.global_batch for n in found})

    def plan(self) -> list[Cell]:
        self._paths = self._datasets()
        return [
            Cell(f"{name}-{seed}", self._run_config(name, seed))
            for seed in range(self.config.seeds)  # a whole comparison first
            for name in OBJECTIVES
        ]

    def measure(self, cell: Cell, folder: Path) -> dict[str, Any]:
        """Ranks of the right answers at each point: JSON values."""
        points = []
        for length in self.lengths:
            kept = folder / f"ranks-{length}.json"
            if not kept.is_file():
                run = cell.run.replace(train=cell.run.train.replace(samples_seen=length))
                train(run, folder, resume=(folder / "config.json").is_file())
                write_json(kept, self._ranks(load(folder / "model")))
            points.append({"samples_seen": length} | json.loads(kept.read_text()))
        return {"objective": cell.name.rpartition("-")[0], "seed": cell.run.train.seed, "points": points}

    def report(self, results: Results) -> Report:
        samples = np.array(self.lengths, dtype=float)
        ways = {name: self._better_way(results, name) for name in OBJECTIVES}
        hits = {m: {name: _hits(results, name, ways[name], m) for name in OBJECTIVES} for m in METRICS}
        curves = {m: {n: h.mean(2) for n, h in of.items()} for m, of in hits.items()}  # (seeds, points)
        factors = {
            m: {
                f"{fast} over {slow}": factor(samples, of[fast], of[slow], self.config.bootstrap)
                for fast, slow in COMPARED
            }
            for m, of in hits.items()
        }
        chance = {"zero_shot": 1 / self.config.items, "recall_at_1": 1 / self.config.items}
        chance["recall_at_10"] = min(1.0, 10 / self.config.items)
        numbers = {
            "settings": to_dict(self.config),
            "samples_seen": self.lengths,
            "scored": ways,
            "chance": chance,
            "curves": {m: {n: c.tolist() for n, c in of.items()} for m, of in curves.items()},
            "factors": {m: {n: f._asdict() for n, f in of.items()} for m, of in factors.items()},
        }
        pictures = {f"{m}.svg": self._picture(m, curves[m], chance[m]) for m in METRICS}
        return Report(self._text(samples, curves, factors, ways), numbers, pictures)

    def _datasets(self) -> list[str]:
        if self.config.data:
            return [str(packed(path, CONTEXT)) for path in self.config.data]
        home, *more = CORPORA
        return [str(get(home)), *(str(get(n, packing=corpus(n).packing.replace(resize=SIDE))) for n in more)]

    def _run_config(self, name: Objective, seed: int) -> RunConfig:
        c = self.config
        run = {"captioner": captioner.tiny, "bag_of_words": bag_of_words.tiny, "contrastive": clip.tiny}[name]()
        block = {"width": c.width, "depth": c.depth, "heads": c.heads}
        model: Any = run.model
        image = model.image.replace(widths=c.widths, depths=(0,) + (1,) * (len(c.widths) - 1))
        model = model.replace(image=image)
        if name == "captioner":
            model = model.replace(language=model.language.replace(**block))
        if name == "contrastive":
            model = model.replace(text=model.text.replace(**block))
            run = run.replace(objective=ContrastiveConfig())  # smoothing is no part of the comparison
        records = [len(Dataset.open(path).split("train")) for path in self._paths]
        mixture = tuple(Part(path=p, weight=float(n)) for p, n in zip(self._paths, records, strict=True))
        data = run.data.replace(path=self._paths[0], mixture=mixture if len(mixture) > 1 else (), workers=c.workers)
        assert isinstance(data, LoaderConfig)
        training = TrainConfig(
            samples_seen=self.lengths[-1],
            global_batch=c.global_batch,
            lr=c.lr,
            warmup_samples=min(c.warmup_samples, self.lengths[0]),
            schedule="constant",
            weight_decay=c.weight_decay,
            betas=run.train.betas,
            precision=run.train.precision,
            channels_last=run.train.channels_last,
            micro_batch=0,
            keep_checkpoints=1,
            val_batches=0,
            seed=seed,
        )
        return run.replace(recipe=f"{name}:efficiency", data=data, model=model, train=training, evals=())

    @torch.no_grad()
    def _ranks(self, model: Pretrained) -> dict[str, dict[str, list[int]]]:
        """By way of scoring: of each picture the rank of its name ("names"), of each name that of its picture."""
        data = Dataset.open(self._paths[0])
        split = data.split(self._split(data))
        places, names = self._items(split)
        reader = ImageReader(split, model.model.config.image_format, 64)
        scores = ScoredItems(model, reader, places, names, Scoring("score")).rows(0, len(places))
        if reader.broken:
            raise ConfigError(f"every picture that is judged on must be readable; got {reader.broken}.")
        blank = blank_images(model.model.config.image_format, 1)
        network: Any = model.model
        tokens, lengths = model.tokenizer.batch(names)
        prior = network.score(blank.to(model.device), tokens.to(model.device), lengths).float().cpu()
        return {way: _both_ways(s) for way, s in (("plain", scores), ("less_blank", scores - prior))}

    def _split(self, data: Dataset) -> str:
        wanted = self.config.split or ("" if self.config.data else "test")
        return data.held_out(wanted)

    def _items(self, split: Any) -> tuple[list[int], list[str]]:
        """Places and first captions, no caption twice."""
        seen: dict[str, int] = {}
        for place in choose_places(split, 0 if len(split) < 2 * self.config.items else 2 * self.config.items):
            captions = split.captions(place)
            if captions and captions[0] not in seen:
                seen[captions[0]] = place
        chosen = list(seen.items())[: self.config.items]
        if len(chosen) < self.config.items:
            raise ConfigError(
                f"items must be at most as many as pictures with a caption of their own in {split.name}; got "
                f"{self.config.items}, and there are {len(chosen)}. Lower it."
            )
        return [place for _, place in chosen], [name for name, _ in chosen]

    def _better_way(self, results: Results, name: Objective) -> str:
        found = {way: _hits(results, name, way, "zero_shot")[:, -1].mean() for way in ("plain", "less_blank")}
        return max(found, key=lambda way: float(found[way]))

    def _picture(self, metric: str, curves: dict[Objective, np.ndarray], chance: float) -> str:
        lines = [
            Curve(TITLES[n], self.lengths, c.mean(0).tolist(), c.min(0).tolist(), c.max(0).tolist())
            for n, c in curves.items()
        ]
        title = f"{METRICS[metric]}, {self.config.items} names, {self.config.seeds} seed(s)"
        return log_curves(lines, title, "samples seen", METRICS[metric], chance)

    def _text(
        self, samples: np.ndarray, curves: dict[str, dict[Objective, np.ndarray]], factors: Any, ways: dict[Any, str]
    ) -> str:
        lines = [f"Mean over {self.config.seeds} seed(s), {self.config.items} pictures and names."]
        for m, title in METRICS.items():
            lines += ["", f"| {title} | " + " | ".join(f"{int(n):,}" for n in samples) + " |"]
            lines += ["|---" * (len(samples) + 1) + "|"]
            for name, c in curves[m].items():
                less = ", less a blank picture's score" if ways[name] == "less_blank" else ""
                lines.append(f"| {TITLES[name]}{less} | " + " | ".join(f"{v:.1%}" for v in c.mean(0)) + " |")
        lines += ["", "| times fewer samples to the other's end | " + " | ".join(METRICS.values()) + " |"]
        lines += ["|---" * (len(METRICS) + 1) + "|"]
        for pair in factors["zero_shot"]:
            words = pair.replace("_", " ")
            lines.append(f"| {words} | " + " | ".join(_said(factors[m][pair]) for m in METRICS) + " |")
        return "\n".join(lines) + "\n"


def _both_ways(scores: Tensor) -> dict[str, list[int]]:
    """The rank of each row's and each column's own entry; what scores as high stands before it."""
    own = scores.diagonal()
    return {
        "names": (scores >= own[:, None]).sum(1).tolist(),
        "pictures": (scores >= own[None]).sum(0).tolist(),
    }


def _hits(results: Results, name: Objective, way: str, metric: str) -> np.ndarray:
    """Whether each item is a hit: (seeds, points, items)."""
    kind, most = ("names", 1) if metric == "zero_shot" else ("pictures", int(metric.rpartition("_")[2]))
    cells = [cell for cell in results.values() if cell["objective"] == name]
    return np.array([[p[way][kind] for p in cell["points"]] for cell in cells]) <= most


def _said(found: Factor) -> str:
    if found.value == 0:
        return f"never reached [{found.low:.2g}, {found.high:.2g}]"
    return f"{'at least ' if found.at_least else ''}{found.value:.2g} [{found.low:.2g}, {found.high:.2g}]"
