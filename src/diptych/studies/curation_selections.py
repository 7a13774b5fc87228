"""The curations that the study compares: words to filters, what these read of the raw run's model, the selection.

``raw`` is all of the pool. Else a curation's name or a .toml, and ``+duplicates`` and ``+score`` behind it or alone:
near and semantic duplicates and copies of held-out images go, and what the raw run's model says fits worst. What that
model says lies beside links to the dataset, in the study's own folder: the dataset is left as it is.
"""

import re
from pathlib import Path
from typing import NamedTuple

from diptych.core.errors import ConfigError
from diptych.data.candidates import SCORES
from diptych.data.curate import CurationConfig, CurationReport, curate
from diptych.data.curations.curation import curation
from diptych.data.dataset import Dataset
from diptych.data.executors.executor import executor
from diptych.data.filters.decontaminate import DecontaminateConfig
from diptych.data.filters.filter import FilterConfig
from diptych.data.filters.near_duplicates import NearDuplicatesConfig
from diptych.data.filters.score import ScoreConfig
from diptych.data.filters.semantic_duplicates import SemanticDuplicatesConfig
from diptych.data.vectors import VECTORS
from diptych.serve.embed_dataset import EmbeddingConfig, embed_dataset
from diptych.serve.score import ScoringConfig, score_dataset

RAW = "raw"
OWN = "raw_model"
"""The name, in a filter's `score` or `vectors`, of what the raw run's model of the same seed says."""
FIELDS = ("score", "vectors")
"""Of filters: which scores and which vectors they read."""


class Strictness(NamedTuple):
    """How much ``+duplicates`` and ``+score`` drop: semantic duplicates are nearer than 1 - eps, and a share stays."""

    eps: float
    fraction: float


def curation_of(words: str, strictness: Strictness) -> CurationConfig:
    """The filters that the words name. Raises ConfigError where they name none."""
    filters: list[FilterConfig] = []
    for word in words.split("+"):
        if word == "duplicates":
            near, semantic = NearDuplicatesConfig(), SemanticDuplicatesConfig(vectors=OWN, eps=strictness.eps)
            filters += [near, DecontaminateConfig(), semantic]
        elif word == "score":
            filters.append(ScoreConfig(score=OWN, fraction=strictness.fraction))
        else:
            found = curation(word)
            if found.splits != ("train",):
                raise ConfigError(
                    f"a curation that is compared must be of the split train; {word} is of {', '.join(found.splits)}. "
                    "Leave its splits out."
                )
            filters += found.filters
    return CurationConfig(filters=tuple(filters))


def with_own(config: CurationConfig, name: str) -> tuple[CurationConfig, set[str]]:
    """The curation with `name` in the place of OWN, and which fields it stood in: what the raw model must be asked."""
    asked, filters = set[str](), list[FilterConfig]()
    for one in config.filters:
        mine = {field: name for field in FIELDS if getattr(one, field, "") == OWN}
        asked |= set(mine)
        filters.append(one.replace(**mine) if mine else one)
    return config.replace(filters=tuple(filters)), asked


def view_of(data: Path, out: Path) -> Path:
    """Links in the folder `out` to all that a packed dataset holds, each of its scores and vectors among it."""
    inside = [entry for entry in data.resolve().iterdir() if entry.name not in (SCORES, VECTORS)]
    inside += [one for kind in (SCORES, VECTORS) for one in (data.resolve() / kind).glob("*")]
    for entry in sorted(inside):
        link = out / entry.relative_to(data.resolve())
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(entry)
    return out


def select(
    view: Path, config: CurationConfig, asked: set[str], model: Path, name: str, out: Path, jobs: int = 0
) -> CurationReport:
    """Curate the dataset that `view` links to into `out`. The model, the raw run's, is `asked` for what filters read of
    it (`with_own`), kept beside the links as `name`. Goes on where it was stopped."""
    alone = executor("pool", 1)
    if "score" in asked:
        score_dataset(view, str(model), name, alone, ScoringConfig())
    if "vectors" in asked:  # of held-out splits too, which decontamination may compare
        splits = tuple(Dataset.open(view).splits)
        embed_dataset(view, str(model), name, alone, EmbeddingConfig(splits=splits))
    return curate(view, config, out, executor("pool", jobs))


def file_name(words: str) -> str:
    """Words of a curation as a part of a file's name."""
    parts = [Path(word).stem if word.endswith(".toml") else word for word in words.split("+")]
    return re.sub(r"[^A-Za-z0-9]+", "_", "_".join(parts)).strip("_")
