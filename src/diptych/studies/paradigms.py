"""All paradigms side by side: the same data, the same budget, the same questions.

Contrastive, masked, generative and pretrained-backbone recipes, each of its `tiny` size, learn on the same records,
once with equally many samples and once with equally much time, and are asked the same of pictures that none has seen:
which name is a picture's (zero-shot), which picture a name's (retrieval), what kind of thing it shows (a linear probe
of frozen features), and which of captions that differ in one fact is true (generated scenes).

What the columns mean, and what the table cannot say: docs/reference/study-paradigms.md.
"""

import json
import time
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from diptych.checkpoints.native import load
from diptych.core.config import to_dict
from diptych.core.errors import ConfigError
from diptych.data.corpora.corpus import get
from diptych.data.dataset import Dataset
from diptych.data.mixture import Part
from diptych.data.ready import packed
from diptych.evals.composition import CompositionConfig
from diptych.evals.eval import Estimate, some
from diptych.evals.linear_probe import LinearProbeConfig
from diptych.evals.scoring import choose_places
from diptych.models.pretrained import Pretrained
from diptych.recipes import clip
from diptych.recipes.find import resolve
from diptych.studies.paradigm_scores import items_of, ranks_of, scores_of
from diptych.studies.paradigm_table import table
from diptych.studies.study import Cell, Report, Results, Study, StudyConfig
from diptych.train.config import RunConfig
from diptych.train.run_folder import begun
from diptych.train.stages import pretrain

Budget = Literal["samples", "minutes"]
RECIPES = (
    *("clip:tiny", "siglip:tiny", "coca:tiny", "maskvlm:tiny", "flava:tiny", "beit3:tiny", "blip:tiny", "git:tiny"),
    *("llava:tiny", "chameleon:tiny", "dalle:tiny", "latent_diffusion:tiny"),
)
FOREIGN_AUGMENTATION = ("git:tiny", "llava:tiny")
"""Recipes whose own augmentation is for another corpus: they take clip:tiny's, for pictures of many artists."""
CORPORA = ("emoji", "scenes")
CONTEXT = 24
PICTURES_OF_MARGINAL = 64
"""Pictures of training over which log p(text) is a mean."""


class ParadigmsConfig(StudyConfig):
    """Settings of the study.

    data          packed datasets, from which samples come equally often; the first one's `split` is judged on, and its
                  tokenizer is everybody's. Empty: the corpora emoji and scenes
    recipes       what is compared; the first is what the others are tested against
    budgets       "samples": each sees `samples_seen`, the stages before it included; "minutes": each trains as long as
                  the budget says, at the rate that its run of equal samples had, which must therefore be among them
    items         pictures of the split, each with a name of its own, that are judged on
    label_field   what the linear probe tells apart; empty: no probe
    probe_train   pictures that the probe learns from
    scene_tests   a packed dataset of captions with false ones beside; empty: the corpus scene_tests, if scenes are
                  learned from, else none
    tests         how many of its items are asked
    """

    split: str = "test"
    recipes: tuple[str, ...] = Field(default=RECIPES, min_length=1)
    budgets: tuple[Budget, ...] = ("samples", "minutes")
    samples_seen: int = Field(default=240_000, gt=0)
    minutes: float = Field(default=5.0, gt=0)
    items: int = Field(default=256, ge=2)
    label_field: str = "group"
    probe_train: int = Field(default=2000, ge=2)
    scene_tests: str = ""
    tests: int = Field(default=360, ge=1)
    workers: int = Field(default=-1, ge=-1)

    def build(self) -> "Paradigms":
        """The study."""
        return Paradigms(self)


class Paradigms(Study):
    """A cell is a recipe, a budget and a seed."""

    summary: ClassVar[str] = (
        "every paradigm's tiny recipe on the same data and budget: zero-shot, retrieval, probe, scenes"
    )
    config: ParadigmsConfig

    def __init__(self, config: ParadigmsConfig) -> None:
        self.config = config
        self._paths: list[str] = []
        if "minutes" in config.budgets and "samples" not in config.budgets:
            raise ConfigError(
                "budgets must hold 'samples' where it holds 'minutes', whose lengths follow from the rates of the "
                "others; got minutes alone. Give both."
            )

    def plan(self) -> list[Cell]:
        self._paths = self._datasets()
        self._look()
        return [
            Cell(f"{name.replace(':', '-')}-{budget}-{seed}", self._run_config(name, seed))
            for seed in range(self.config.seeds)
            for budget in sorted(self.config.budgets, reverse=True)  # samples first: the others need their rates
            for name in self.config.recipes
        ]

    def measure(self, cell: Cell, folder: Path) -> dict[str, Any]:
        """What the run took, the ranks of names and pictures, and hits of the probe and the tests: JSON values."""
        budget, seed = cell.name.split("-")[-2:]
        samples = float(self.config.samples_seen)
        if budget == "minutes":
            other = folder.parents[1] / "cells" / f"{cell.name.rsplit('-', 2)[0]}-samples-{seed}.json"
            took = json.loads(other.read_text())
            samples = took["samples_seen"] * 60 * self.config.minutes / took["seconds"]
        run = scaled(cell.run, samples)
        pretrain(run, folder, resume=begun(folder) or (folder / "stages").exists())
        model = load(folder / "model")
        started = time.monotonic()
        found = {
            "recipe": run.recipe.partition("/")[0],
            "budget": budget,
            "seed": int(seed),
            "samples_seen": sum(r.train.samples_seen for r in (*run.before, run)),
            "seconds": seconds_of(folder),
            "parameters": sum(p.numel() for p in model.model.parameters()),
            **self._judged(model),
        }
        return found | {"judging_seconds": time.monotonic() - started}

    def report(self, results: Results) -> Report:
        if len({tuple(r["captions"]) for r in results.values()}) > 1:
            raise ConfigError(
                "the cells of a study must be judged on the same pictures; some of these were measured when the data, "
                "or how pictures are chosen, were others. Remove cells/ and give the command again: the runs are kept."
            )
        text, numbers = table(list(results.values()), self.config.items, self.config.recipes[0])
        return Report(text, {"settings": to_dict(self.config), **numbers}, {})

    def _judged(self, model: Pretrained) -> dict[str, Any]:
        c = self.config
        split = Dataset.open(self._paths[0]).split(c.split)
        places, names = items_of(split, c.items)
        seen = Dataset.open(self._paths[0]).split("train")
        scores = scores_of(model, split, places, names, (seen, choose_places(seen, PICTURES_OF_MARGINAL)))
        found: dict[str, Any] = {"ranks": {way: ranks_of(s) for way, s in scores.items()}, "captions": names}
        if c.label_field:
            probe = LinearProbeConfig(
                data=self._paths[0],
                split=c.split,
                label_field=c.label_field,
                max_train=c.probe_train,
                iterations=300,
                pictures=0,
            )
            found["probe"] = _kept(probe.build().run(model, split, artifacts=False).metrics["acc_at_1"])
        tests = c.scene_tests or (str(get("scene_tests")) if not c.data else "")
        if tests:
            asked = Dataset.open(tests)
            which = asked.split(asked.held_out("test" if "test" in asked.splits else ""))
            asks = CompositionConfig(data=tests, max_items=c.tests, pictures=0)
            if not asks.unsuited(model, which):
                result = asks.build().run(model, which, artifacts=False)
                found["scene_tests"] = _kept(result.metrics[asks.build().headline])
        return found

    def _look(self) -> None:
        """Raise what would stop the judging before anything is trained: too few pictures, none with a label."""
        c = self.config
        split = Dataset.open(self._paths[0]).split(c.split)
        items_of(split, c.items)
        if c.label_field and not all(split.meta(p).get(c.label_field) is not None for p in some(split)):
            raise ConfigError(
                f"label_field must be a field of the meta of every record; got {c.label_field!r}, which some of "
                f"{self._paths[0]} ({c.split}) lack. Name another, or none for a study without a probe: label_field="
            )

    def _datasets(self) -> list[str]:
        if self.config.data:
            return [str(packed(path, CONTEXT)) for path in self.config.data]
        return [str(get(name)) for name in CORPORA]

    def _run_config(self, name: str, seed: int) -> RunConfig:
        run, _ = resolve(name, [f"data={self._paths[0]}"])
        before = tuple(self._on_our_data(r, name, seed) for r in run.before)
        return self._on_our_data(run, name, seed).replace(recipe=f"{name}/paradigms", before=before)

    def _on_our_data(self, run: RunConfig, name: str, seed: int) -> RunConfig:
        mixture = tuple(Part(path=p, weight=1.0) for p in self._paths)
        data = run.data.replace(
            path=self._paths[0], mixture=mixture if len(mixture) > 1 else (), workers=self.config.workers
        )
        if name in FOREIGN_AUGMENTATION:
            data = data.replace(augment=clip.tiny().data.augment)
        train = run.train.replace(seed=seed, val_batches=0, keep_checkpoints=1)
        return run.replace(data=data, train=train, evals=())


def scaled(run: RunConfig, samples: float) -> RunConfig:
    """`run` with its stages' budgets in the same proportions and `samples` in all; whole batches, at least one each."""
    factor = samples / sum(r.train.samples_seen for r in (*run.before, run))

    def shorter(one: RunConfig) -> RunConfig:
        t = one.train
        batch = t.global_batch or 1
        lengths = {"samples_seen": batch * max(1, round(t.samples_seen * factor / batch))}
        if t.warmup_samples is not None:
            lengths["warmup_samples"] = min(round(t.warmup_samples * factor), lengths["samples_seen"])
        if t.cooldown_samples:
            lengths["cooldown_samples"] = round(t.cooldown_samples * factor)
        return one.replace(train=t.replace(**lengths))

    return shorter(run).replace(before=tuple(shorter(r) for r in run.before))


def seconds_of(folder: Path) -> float:
    """How long a run and its stages trained, by the rates in their logs: stops, evals and set-up do not count."""
    logs = [folder / "metrics.jsonl", *sorted(folder.glob("stages/*/metrics.jsonl"))]
    total = 0.0
    for log in logs:
        before = 0
        for line in log.read_text().splitlines():
            record = json.loads(line)
            if record.get("kind", "train") == "train" and record.get("samples_per_s"):
                total += (record["samples_seen"] - before) / record["samples_per_s"]
                before = record["samples_seen"]
    return total


def _kept(found: Estimate) -> dict[str, Any]:
    return {"value": found.value, "low": found.low, "high": found.high, "chance": found.chance, "n": found.n}
