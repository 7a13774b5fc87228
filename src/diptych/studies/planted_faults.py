"""Do filters find what they are for? A pool with planted faults, each filter against the truth, and a CLIP of its own.

Captions of other records, copies, captions that say nothing and leaked test pictures are planted into real records
(`planted_pool.py`). A CLIP learns on that very pool, as users must, and scores it. Each filter's precision and recall
are told by fault, beside what dropping as many records by lot would find; then what balancing does to rare concepts.

What the columns mean, and what the table cannot say: docs/reference/study-planted-faults.md.
"""

from collections import Counter
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from diptych.checkpoints.native import load
from diptych.core.config import to_dict
from diptych.core.errors import ConfigError
from diptych.data.candidates import CandidatePool
from diptych.data.corpora.corpus import corpus, get
from diptych.data.dataset import Dataset
from diptych.data.executors.executor import Executor, executor
from diptych.data.filters.balance import BalanceConfig
from diptych.data.ready import packed
from diptych.data.selection import Selection
from diptych.recipes import clip
from diptych.serve.embed_dataset import embed_dataset
from diptych.serve.score import ScoringConfig, score_dataset
from diptych.studies.paradigm_scores import ranks_of, scores_of
from diptych.studies.planted_balance import Concepts, balance_effect, balanced_and_random
from diptych.studies.planted_filters import MODELS, curations, judge_filters
from diptych.studies.planted_pool import PlantedPoolConfig, build_pool, read_truth
from diptych.studies.planted_table import (
    balance_lines,
    filter_lines,
    filter_numbers,
    score_lines,
    score_numbers,
    trained_lines,
    trained_numbers,
)
from diptych.studies.study import Cell, Report, Results, Study, StudyConfig
from diptych.train.config import RunConfig
from diptych.train.run_folder import begun
from diptych.train.stages import pretrain

CORPUS, SIDE, HELD_OUT = "openclipart", 128, 0.1
"""What a pool is made of by default: the side in pixels, and the share of the pictures that are tests."""


class PlantedFaultsConfig(StudyConfig):
    """Settings of the study.

    data           one packed dataset, whose records are taken for clean; empty: the corpus openclipart
    faults         what is planted (``faults.mismatched=0.2``)
    samples_seen   of the longest run on the pool; the others are a half, a quarter, ... of it
    points         how many lengths there are; all filters are judged with the longest run's scores and vectors
    captions       of which of a record's captions the score is (`diptych score`)
    keep           the share of the pool that stays by its score
    balance        the filter that balances concepts
    draws          seeds of balanced and random sets that are compared
    at_least       for which n the concepts with n records and more are counted
    train_balanced whether models are trained on a balanced and on a random set too, with `balanced_samples` each
    jobs           processes that pack and curate; 0: one a core
    """

    faults: PlantedPoolConfig = PlantedPoolConfig()
    samples_seen: int = Field(default=122_880, gt=0)
    points: int = Field(default=3, ge=1)
    captions: Literal["first", "mean", "max"] = "mean"
    keep: float = Field(default=0.7, gt=0, lt=1)
    balance: BalanceConfig = BalanceConfig(t=10)
    draws: int = Field(default=10, ge=2)
    at_least: tuple[int, ...] = (1, 5, 10, 20)
    train_balanced: bool = True
    balanced_samples: int = Field(default=61_440, gt=0)
    workers: int = Field(default=-1, ge=-1)
    jobs: int = Field(default=0, ge=0)

    def build(self) -> "PlantedFaults":
        """The study."""
        return PlantedFaults(self)


class PlantedFaults(Study):
    """A cell is a run on the pool, of a length and a seed, or one on a balanced or a random set of its records."""

    summary: ClassVar[str] = (
        "a pool with planted faults: precision and recall of each filter, and what balancing does to rare concepts"
    )
    config: PlantedFaultsConfig

    def __init__(self, config: PlantedFaultsConfig) -> None:
        self.config = config
        self._out = Path()

    @property
    def pool(self) -> Path:
        """The folder of the pool."""
        return self._out / "pool"

    @property
    def lengths(self) -> list[int]:
        """Samples seen by the runs on the pool, ascending."""
        return sorted({max(1, self.config.samples_seen >> i) for i in range(self.config.points)})

    def run(self, out: Path) -> Report:
        """As every study; the pool and the curations of it lie in `out` too."""
        self._out = out
        return super().run(out)

    def plan(self) -> list[Cell]:
        c = self.config
        build_pool(self._base(), self.pool, c.faults, c.jobs)
        cells = []
        for seed in range(c.seeds):
            cells += [Cell(f"clip-{n}-{seed}", self._run_config(seed, n)) for n in self.lengths]
            if c.train_balanced:
                for name, path in self._sets(seed).items():
                    cells.append(Cell(f"{name}-{seed}", self._run_config(seed, c.balanced_samples, str(path))))
        return cells

    def measure(self, cell: Cell, folder: Path) -> dict[str, Any]:
        """Scores by fault and what filters find, or the ranks of held-out pictures: JSON values."""
        pretrain(cell.run, folder, resume=begun(folder))
        about = {"seed": cell.run.train.seed, "samples_seen": cell.run.train.samples_seen}
        name = cell.name.partition("-")[0]
        if name == "clip":
            return about | self._filters(cell, folder)
        return about | {"set": name} | self._retrieval(folder, Path(cell.run.data.selection))

    def report(self, results: Results) -> Report:
        c = self.config
        scored = [r for r in results.values() if "filters" in r]
        whole = [r["filters"] for r in scored if r["samples_seen"] == self.lengths[-1]]
        found: dict[str, Any] = {
            "settings": to_dict(c),
            "filters": filter_numbers({name: [f[name] for f in whole if name in f] for name in whole[0]}),
            "scores": score_numbers(scored),
            "balance": {"t": c.balance.t}
            | balance_effect(self.pool, c.balance, c.draws, c.at_least, self._out / "curations", self._workers()),
        }
        lines = [*filter_lines(found["filters"]), "", *score_lines(found["scores"], c.keep)]
        lines += ["", *balance_lines(found["balance"])]
        trained = [r for r in results.values() if "set" in r]
        if trained:
            found["trained"] = trained_numbers(trained)
            lines += ["", *trained_lines(found["trained"])]
        return Report("\n".join(lines) + "\n", found, {})

    def _filters(self, cell: Cell, folder: Path) -> dict[str, Any]:
        """Score the pool with a run and let filters judge: of the longest run all, of other lengths the one by score;
        of other seeds those that depend on the model."""
        c, workers, truth = self.config, self._workers(), read_truth(self.pool)
        score_dataset(self.pool, str(folder), cell.name, executor(jobs=1), ScoringConfig(captions=c.captions))
        chosen = curations(cell.name, cell.name, c.keep)
        if cell.run.train.samples_seen == self.lengths[-1]:
            embed_dataset(self.pool, str(folder), cell.name, executor(jobs=1))
            chosen = chosen if cell.run.train.seed == 0 else {name: chosen[name] for name in MODELS}
        else:
            chosen = {"score": chosen["score"]}
        pool, scores = CandidatePool(self.pool), dict[str, list[float]]()
        for shard in pool.shards:
            rows = pool.rows(shard)
            for uid, value in zip(rows.table["uid"].to_pylist(), rows.scores(cell.name).tolist(), strict=True):
                scores.setdefault(truth[uid]["fault"], []).append(value)
        found = judge_filters(self.pool, truth, chosen, self._out / "curations" / cell.name, workers)
        return {"scores": scores, "filters": found}

    def _retrieval(self, folder: Path, selection: Path) -> dict[str, Any]:
        """The rank of each held-out picture by a caption that it alone has, among all, and whether that caption holds a
        rare concept. Pictures that leaked into the pool are not asked about."""
        split, truth, chosen = Dataset.open(self.pool).split("test"), read_truth(self.pool), Selection.load(selection)
        leaked = {row["picture_of"] for row in truth.values() if row["fault"] == "leaked"}
        wrong = Selection.of(uid for uid, row in truth.items() if row["fault"] in ("mismatched", "boilerplate"))
        asked = [p for p in range(len(split)) if split.image_size(p) != (0, 0) and split.uid(p) not in leaked]
        counts = Counter(said for p in asked for said in split.captions(p))
        first: dict[str, int] = {}
        for place in asked:
            own = next((said for said in split.captions(place) if counts[said] == 1), None)
            if own is not None:
                first[own] = place
        if not first:
            raise ConfigError(
                f"held-out items must have a picture and a caption of their own; got none in {self.pool} (test). Give "
                "other data, or train_balanced=false."
            )
        names, places = list(first), list(first.values())
        concepts = Concepts(self.pool, self.config.balance)
        ranks = ranks_of(scores_of(load(folder / "model"), split, places, names)["cosine"])
        return {
            "records": len(chosen),
            "faulty": len(chosen & wrong) / len(chosen),
            "ranks": ranks["pictures"],
            "captions": names,
            "kinds": [concepts.kind([name]) for name in names],
        }

    def _base(self) -> Path:
        c = self.config
        if len(c.data) > 1:
            raise ConfigError(f"data must be one dataset, whose records are clean; got {len(c.data)}. Give one.")
        if c.data:
            return packed(c.data[0])
        return get(CORPUS, packing=corpus(CORPUS).packing.replace(resize=SIDE), test=HELD_OUT)

    def _sets(self, seed: int) -> dict[str, Path]:
        """A balanced set of the pool and a random one of equal size, as selections."""
        balance, folder = self.config.balance.replace(seed=seed), self._out / "sets"
        found = {name: folder / f"{name}-{seed}.npy" for name in ("balanced", "random")}
        both = balanced_and_random(self.pool, balance, self._out / "curations", self._workers())
        folder.mkdir(parents=True, exist_ok=True)
        for path, chosen in zip(found.values(), both, strict=True):
            chosen.save(path)
        return found

    def _workers(self) -> Executor:
        return executor(jobs=self.config.jobs)

    def _run_config(self, seed: int, samples_seen: int, selection: str = "") -> RunConfig:
        run = clip.tiny()
        data = run.data.replace(path=str(self.pool), workers=self.config.workers, selection=selection)
        training = run.train.replace(samples_seen=samples_seen, seed=seed, val_batches=0, keep_checkpoints=1)
        return run.replace(recipe="clip:tiny/planted", data=data, train=training, evals=())
