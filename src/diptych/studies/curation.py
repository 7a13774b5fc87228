"""Curated against raw: does a model learn more from what a curation keeps, with equally many samples seen?

For each dataset a recipe is trained on all of it and on each selection, the same number of samples, and asked to find
held-out images and captions, which no curation has touched. Where a curation asks a model (a score, semantic
duplicates), it is the raw run's of the same seed: nothing from outside comes in.

What the columns mean, and what the table cannot say: docs/reference/study-curation.md.
"""

from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from pydantic import Field

from diptych.checkpoints.native import load
from diptych.core.config import to_dict
from diptych.core.errors import ConfigError
from diptych.data.corpora.corpus import get
from diptych.data.curate import CurationReport
from diptych.data.dataset import Dataset
from diptych.data.ready import packed
from diptych.recipes.find import resolve
from diptych.studies.curation_judging import judge, judged_once
from diptych.studies.curation_selections import RAW, Strictness, curation_of, file_name, select, view_of, with_own
from diptych.studies.curation_table import rows_of, table
from diptych.studies.paradigms import scaled, seconds_of
from diptych.studies.study import Cell, Report, Results, Study, StudyConfig
from diptych.train.config import RunConfig
from diptych.train.run_folder import begun
from diptych.train.stages import pretrain

CORPORA = ("openclipart", "stamps")


class CurationStudyConfig(StudyConfig):
    """Settings of the study.

    data          packed datasets, each compared by itself; empty: the corpora openclipart and stamps
    curations     what is compared: "raw", which comes first and which the others are tested against; a curation's name
                  or a .toml; behind it or alone "+duplicates" (near and semantic ones, copies of held-out images) and
                  "+score" (the worst by the raw run's model)
    recipe        what is trained
    samples_seen  by each run
    split         what is judged on; empty: of the corpora test, else val or test, whichever is there
    max_items     at most so many of its images; 0: all
    eps           semantic duplicates have a cosine above 1 - eps by the raw run's model
    fraction      the share that "+score" keeps, of what the filters before it have left
    jobs          shards that are curated at once; 0: one a core
    workers       processes that prepare batches, as data.workers
    """

    seeds: int = Field(default=2, ge=1)
    curations: tuple[str, ...] = Field(default=(RAW, "house:default", "house:default+duplicates+score"), min_length=2)
    recipe: str = "clip:tiny"
    samples_seen: int = Field(default=40_000, gt=0)
    split: str = ""
    max_items: int = Field(default=5000, ge=0)
    eps: float = Field(default=0.02, ge=0, le=1)
    fraction: float = Field(default=0.8, gt=0, le=1)
    jobs: int = Field(default=0, ge=0)
    workers: int = Field(default=-1, ge=-1)

    def build(self) -> "CurationStudy":
        """The study."""
        return CurationStudy(self)


class _Asked(NamedTuple):
    """What a cell is about; `dataset` is its name, `path` where it lies."""

    dataset: str
    path: Path
    curation: str
    seed: int


class CurationStudy(Study):
    """A cell is a dataset, a curation and a seed; the raw one of a dataset and seed comes before the others."""

    summary: ClassVar[str] = "a recipe trained on raw and on curated data, equal samples: held-out retrieval, paired"
    config: CurationStudyConfig

    def __init__(self, config: CurationStudyConfig) -> None:
        self.config = config
        self._cells: dict[str, _Asked] = {}
        names = [file_name(words) for words in config.curations]
        if config.curations[0] != RAW or len(set(names)) < len(names):
            raise ConfigError(
                f"curations must be different ones, of which the first is {RAW!r}; got {', '.join(config.curations)}. "
                f'Example: curations=\'["{RAW}", "house:default"]\''
            )
        for words in config.curations[1:]:
            curation_of(words, self._strictness)

    def plan(self) -> list[Cell]:
        found = self._datasets()
        cells = []
        for seed in range(self.config.seeds):
            for name, path in found.items():
                run = self._run_config(path, seed)
                for words in self.config.curations:
                    cell = Cell(f"{name}-{file_name(words)}-{seed}", run)
                    cells.append(cell)
                    self._cells[cell.name] = _Asked(name, path, words, seed)
        return cells

    def measure(self, cell: Cell, folder: Path) -> dict[str, Any]:
        """What the curation kept and why the rest went, what the run took, and the hits of each item: JSON values."""
        asked, out, run = self._cells[cell.name], folder.parents[1], cell.run
        data = Dataset.open(asked.path)
        split = self._split(data)
        judged = judged_once(data, split, out / "judged" / f"{asked.dataset}.json")
        kept, dropped = len(data.split("train")), list[dict[str, Any]]()
        if asked.curation != RAW:
            report = self._selected(asked, out)
            kept = report.kept
            dropped = [{"filter": f, "reason": r, "count": n} for (f, r), n in report.dropped.items()]
            run = _selecting(run, str(report.out.resolve()))
        pretrain(run, folder, resume=begun(folder) or (folder / "stages").exists())
        model = load(folder / "model")
        return {
            **{"dataset": asked.dataset, "curation": asked.curation, "seed": asked.seed},
            **{"kept": kept, "of": len(data.split("train")), "dropped": dropped},
            "samples_seen": sum(r.train.samples_seen for r in (*run.before, run)),
            "seconds": seconds_of(folder),
            **{k: judged[k] for k in ("split", "copies", "alike", "unfit")},
            "judged": judge(model, data.split(split), judged["uids"], self.config.max_items),
        }

    def report(self, results: Results) -> Report:
        parts, numbers = [], {}
        for name in dict.fromkeys(r["dataset"] for r in results.values()):
            cells = [r for r in results.values() if r["dataset"] == name]
            if len({tuple(tuple(way["keys"]) for way in c["judged"]["ways"].values()) for c in cells}) > 1:
                raise ConfigError(
                    f"the cells of a study must be judged on the same pictures; some of {name} were measured when the "
                    "data were others. Remove cells/ and judged/ and give the command again: the runs are kept."
                )
            numbers[name] = rows_of(cells)
            parts.append(table(name, self.config.recipe, cells, numbers[name]))
        return Report("\n".join(parts), {"settings": to_dict(self.config), "datasets": numbers}, {})

    @property
    def _strictness(self) -> Strictness:
        return Strictness(self.config.eps, self.config.fraction)

    def _selected(self, asked: _Asked, out: Path) -> CurationReport:
        """What a cell's curation keeps: made once for all seeds where it asks no model."""
        own = f"{RAW}-{asked.seed}"
        config, fields = with_own(curation_of(asked.curation, self._strictness), own)
        home = f"{asked.dataset}-{file_name(asked.curation)}" + (f"-{asked.seed}" if fields else "")
        model = out / "runs" / f"{asked.dataset}-{own}" / "model"
        view = view_of(asked.path, out / "pools" / asked.dataset)
        return select(view, config, fields, model, own, out / "selections" / home, self.config.jobs)

    def _datasets(self) -> dict[str, Path]:
        """By name; looked at before anything is trained."""
        if not self.config.data:
            found = {name: get(name) for name in CORPORA}
        else:
            found = {}
            for given in self.config.data:
                path = packed(given)
                name = file_name(path.resolve().name) or "data"
                found[name if name not in found else f"{name}_{len(found)}"] = path
        for path in found.values():
            data = Dataset.open(path)
            data.split("train")
            self._split(data)
        return found

    def _split(self, data: Dataset) -> str:
        found = data.held_out(self.config.split or ("" if self.config.data else "test"))
        if found == "train" or not len(data.split(found)):
            raise ConfigError(
                f"split must be one that is not trained on; {data.path} has {', '.join(data.splits)}. Pack it with "
                "--val, or name another split."
            )
        return found

    def _run_config(self, path: Path, seed: int) -> RunConfig:
        name = self.config.recipe
        _, run = resolve(name, [f"data={path}"])

        def plain(one: RunConfig) -> RunConfig:
            train = one.train.replace(seed=seed, val_batches=0, keep_checkpoints=1)
            return one.replace(data=one.data.replace(workers=self.config.workers), train=train, evals=())

        before = tuple(plain(r) for r in run.before)
        return scaled(plain(run).replace(recipe=f"{name}/curation", before=before), float(self.config.samples_seen))


def _selecting(run: RunConfig, selection: str) -> RunConfig:
    """The run, and its stages, on what a selection holds."""
    before = tuple(_selecting(r, selection) for r in run.before)
    return run.replace(data=run.data.replace(selection=selection), before=before)
