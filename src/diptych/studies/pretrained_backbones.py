"""What do pretrained backbones buy? LiT from two packages beside CLIP from scratch, on the same pairs.

`lit:tiny` (ImageNet's EfficientNet-Lite0 locked, MiniLM tuned; Zhai et al., 2022, arXiv:2111.07991) and `clip:tiny`
train on emoji, Open Clip Art and Tux Paint's stamps together, and are judged on stamps that neither has seen: which
picture a sentence means, which sentence a picture, and which of sixteen kinds of things a picture shows.
"""

import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from diptych.checkpoints.native import load
from diptych.core.config import to_dict
from diptych.data.corpora.corpus import corpus, get
from diptych.data.dataset import Dataset
from diptych.data.mixture import Part
from diptych.data.ready import packed
from diptych.evals.retrieval import RetrievalConfig
from diptych.evals.statistics import bootstrap_mean, compare
from diptych.evals.zero_shot import ZeroShotConfig
from diptych.recipes import clip, lit
from diptych.studies.study import Cell, Report, Results, Study, StudyConfig
from diptych.train.run_folder import begun
from diptych.train.stages import pretrain

RECIPES = {"lit": lit.tiny, "clip": clip.tiny}
TITLES = {"lit": "LiT: packaged EfficientNet-Lite0 (locked) and MiniLM (tuned)", "clip": "CLIP from scratch"}
METRICS = {
    "t2i_recall_at_1": "text to image R@1",
    "t2i_recall_at_5": "text to image R@5",
    "i2t_recall_at_1": "image to text R@1",
    "acc_at_1": "zero-shot accuracy",
}
CORPORA = ("stamps", "emoji", "openclipart")
SIDE, CONTEXT = 128, 32
"""Pixels to which pictures are packed, as many as LiT looks at; tokens of a caption."""


class PretrainedBackbonesConfig(StudyConfig):
    """Settings of the study.

    data          packed datasets, on whose train splits both learn; the first one's `split` is what is judged on.
                  Empty: the corpora stamps, emoji and openclipart
    samples_seen  of both runs; 0: each recipe's own, both of some minutes on two cores
    """

    split: str = "test"
    samples_seen: int = Field(default=0, ge=0)
    workers: int = Field(default=-1, ge=-1)

    def build(self) -> "PretrainedBackbones":
        """The study."""
        return PretrainedBackbones(self)


class PretrainedBackbones(Study):
    """A cell is one of the two recipes and a seed. Records of all datasets are drawn alike often.

    From scratch the tokenizer is that of the dataset with the most records; LiT has MiniLM's own. Where the first
    dataset holds no labels there is no zero-shot accuracy.
    """

    summary: ClassVar[str] = "LiT from packaged backbones beside CLIP from scratch, on stamps that neither has seen"
    config: PretrainedBackbonesConfig

    def __init__(self, config: PretrainedBackbonesConfig) -> None:
        self.config = config
        self._paths: list[str] = []

    def plan(self) -> list[Cell]:
        self._paths = self._datasets()
        return [
            Cell(f"{name}-{seed}", self._run_config(name, seed))
            for seed in range(self.config.seeds)
            for name in RECIPES
        ]

    def measure(self, cell: Cell, folder: Path) -> dict[str, Any]:
        """Hits of each item by metric, and what the run took: JSON values."""
        started = time.monotonic()
        pretrain(cell.run, folder, resume=begun(folder))
        seconds = time.monotonic() - started
        judged = Dataset.open(self._paths[0])
        split, model = judged.split(self.config.split), load(folder / "model")
        retrieval = RetrievalConfig(data=self._paths[0], split=self.config.split, pictures=0).build().run(model, split)
        items, captions_of = retrieval.items["images"], retrieval.items["captions"].values
        shown = {m: captions_of[m] for m in ("t2i_recall_at_1", "t2i_recall_at_5")}
        shown["i2t_recall_at_1"] = items.values["i2t_recall_at_1"]
        hits = {m: [int(hit) for hit in values] for m, values in shown.items()}
        chance = {m: retrieval.metrics[m].chance for m in hits}
        if (judged.path / "classes.txt").is_file():
            found = ZeroShotConfig(data=self._paths[0], split=self.config.split, pictures=0).build().run(model, split)
            assert found.items["images"].keys == items.keys
            hits["acc_at_1"] = [int(hit) for hit in found.items["images"].values["acc_at_1"]]
            chance["acc_at_1"] = found.metrics["acc_at_1"].chance
        captions = {split.uid(i): split.captions(i)[0] for i in range(len(split))}
        parameters = sum(p.numel() for p in model.model.parameters())
        return {
            "recipe": cell.name.rpartition("-")[0],
            "seed": cell.run.train.seed,
            "samples_seen": cell.run.train.samples_seen,
            "seconds": seconds,
            "parameters": parameters,
            "hits": hits,
            "chance": chance,
            "captions": [captions[uid] for uid in items.keys],
        }

    def report(self, results: Results) -> Report:
        first = next(iter(results.values()))
        # equal sentences are one question: what is resampled and flipped are sentences
        clusters = np.unique(first["captions"], return_inverse=True)[1]
        cells = {name: [r for r in results.values() if r["recipe"] == name] for name in RECIPES}
        metrics = [m for m in METRICS if m in first["hits"]]
        means = {n: {m: np.mean([c["hits"][m] for c in of], axis=0) for m in metrics} for n, of in cells.items()}
        numbers: dict[str, Any] = {"settings": to_dict(self.config), "chance": first["chance"], "recipes": {}}
        for name, of in cells.items():
            values = {m: [float(x.mean()), *bootstrap_mean(x, clusters)] for m, x in means[name].items()}
            about = {"samples_seen": of[0]["samples_seen"], "parameters": of[0]["parameters"]}
            numbers["recipes"][name] = about | {
                "seconds": float(np.mean([c["seconds"] for c in of])),
                "metrics": values,
            }
        tests = compare(means["lit"], means["clip"], clusters)
        numbers["lit_less_clip"] = {m: {**vars(test), "verdict": verdict} for m, (test, verdict) in tests.items()}
        return Report(self._text(numbers, metrics, len(clusters)), numbers, {})

    def _datasets(self) -> list[str]:
        if self.config.data:
            return [str(packed(path, CONTEXT)) for path in self.config.data]
        return [str(get(n, packing=corpus(n).packing.replace(resize=SIDE))) for n in CORPORA]

    def _run_config(self, name: str, seed: int) -> Any:
        records = {path: len(Dataset.open(path).split("train")) for path in self._paths}
        mixture = tuple(Part(path=path, weight=float(n)) for path, n in records.items())
        run = RECIPES[name]()
        home = max(records, key=lambda path: records[path])
        data = run.data.replace(path=home, mixture=mixture if len(mixture) > 1 else (), workers=self.config.workers)
        training = run.train.replace(seed=seed, val_batches=0, keep_checkpoints=1)
        if self.config.samples_seen:
            training = training.replace(samples_seen=self.config.samples_seen)
        return run.replace(recipe=f"{name}:backbones", data=data, train=training, evals=())

    def _text(self, numbers: dict[str, Any], metrics: list[str], items: int) -> str:
        lines = [
            f"Held-out pictures with {items} different sentences; mean over {self.config.seeds} seed(s), 95 % "
            "intervals over sentences.",
            "",
            "| | samples seen | minutes | parameters | " + " | ".join(METRICS[m] for m in metrics) + " |",
            "|---" * (4 + len(metrics)) + "|",
        ]
        for name, row in numbers["recipes"].items():
            about = f"{row['samples_seen']:,} | {row['seconds'] / 60:.1f} | {row['parameters'] / 1e6:.1f} M"
            lines.append(
                f"| {TITLES[name]} | {about} | " + " | ".join(_said(row["metrics"][m]) for m in metrics) + " |"
            )
        lines.append("| guessing | | | | " + " | ".join(f"{numbers['chance'][m]:.1%}" for m in metrics) + " |")
        lines += ["", "LiT less CLIP, paired by picture (p of all metrics together, Holm):", ""]
        for m in metrics:
            test = numbers["lit_less_clip"][m]
            lines.append(
                f"- {METRICS[m]}: {test['difference']:+.1%} [{test['low']:+.1%}, {test['high']:+.1%}], "
                f"p = {test['p_value']:.2g}: {test['verdict']}"
            )
        return "\n".join(lines) + "\n"


def _said(estimate: list[float]) -> str:
    value, low, high = estimate
    return f"{value:.1%} [{low:.1%}, {high:.1%}]"
