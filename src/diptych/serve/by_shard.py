"""A model asked about every record of a dataset, shard by shard, what it says kept in files beside the dataset.

What scoring and embedding share: a file a shard, whole or not there, so that what was stopped goes on; beside them
``about.json`` says which model, settings and data they are of; workers open dataset and model once each.
"""

import json
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from diptych.checkpoints.open_model import open_model, parse
from diptych.core.errors import ConfigError
from diptych.core.files import sweep, write_json
from diptych.core.progress import say, track
from diptych.data.candidates import CandidatePool, Rows, Shard
from diptych.data.executors.executor import Executor
from diptych.models.pretrained import Pretrained

ABOUT = "about.json"
Work = Callable[[CandidatePool, Rows, Pretrained], object]
"""Asks the model about the records of a shard, and writes that shard's file. Must be picklable."""


class ShardImages:
    """A shard's images as an image reader asks for them."""

    def __init__(self, rows: Rows) -> None:
        self.image_bytes = rows.image


def ask_by_shard(
    pool: CandidatePool,
    model: str,
    work: Work,
    path_of: Callable[[Shard], Path],
    about: dict[str, str],
    executor: Executor,
    label: str,
) -> Path:
    """Do `work` for every shard that has no file yet; returns the folder of the files, which `path_of` names.

    Raises ConfigError where what is there already is about something else than `about`.
    """
    folder = path_of(pool.shards[0]).parent
    _claim(folder, about, parse(model).name)
    todo = [shard for shard in pool.shards if not path_of(shard).is_file()]
    if not todo:
        say(f"{folder}: every shard is done already.")
    for _ in track(executor.map(partial(_one, pool.path, pool.splits, model, work), todo), label, len(todo)):
        pass
    return folder


def opened_anew(model: str) -> Pretrained:
    """The model that these words name, as it lies there now; what this process has opened before is forgotten."""
    _opened_model.cache_clear()
    _opened_pool.cache_clear()
    return _opened_model(model)


@lru_cache(2)
def _opened_model(model: str) -> Pretrained:
    """On a GPU where there is one."""
    return open_model(model, "cuda" if torch.cuda.is_available() else "cpu")


@lru_cache(2)
def _opened_pool(path: Path, splits: tuple[str, ...]) -> CandidatePool:
    return CandidatePool(path, splits)


def _one(path: Path, splits: tuple[str, ...], model: str, work: Work, shard: Shard) -> None:
    pool = _opened_pool(path, splits)
    work(pool, pool.rows(shard), _opened_model(model))


def _claim(folder: Path, about: dict[str, Any], who: str) -> None:
    path = folder / ABOUT
    if not path.is_file():
        sweep(folder, ABOUT)
        write_json(path, about)
    elif json.loads(path.read_text()) != about:
        raise ConfigError(
            f"what a model says must keep its model, settings and data; what is in {folder} is of others. Give this "
            f"another --name, or remove that folder. (It was asked of {who}.)"
        )
