"""Suites: which evals suit a model and its data, run so that nothing is computed twice.

A result is kept under a key of all that it depends on, and is not computed again while that is unchanged; so a suite
that was broken off goes on. Vectors are kept beside the results (`models/vector_memory.py`).
"""

import hashlib
import inspect
import json
import math
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from diptych import __version__
from diptych.core.config import override, to_dict
from diptych.core.distributed import barrier, rank, world_size
from diptych.core.errors import ConfigError, EvalError
from diptych.data.image_reader import ImageReader
from diptych.evals.eval import EvalConfig, EvalResult
from diptych.evals.find import config_for, names, read_result, result_path, run_folder, save
from diptych.evals.open_data import beside, open_data, split_spec
from diptych.evals.scoring import choose_places, read_gallery
from diptych.models.pretrained import Pretrained
from diptych.models.vector_memory import VectorMemory

SUITES = ("quick", "full")
WORDS = (
    "classes.txt",
    "classnames.txt",
    "templates.txt",
    "zeroshot_classification_templates.txt",
    "answers.txt",
)
"""Files beside the data that evals read, and that its fingerprint does not cover."""
SHARE = 512
"""Images that a process embeds before its vectors are written, so that little is lost when it is killed."""


class Task(NamedTuple):
    """An eval on a split of opened data."""

    config: EvalConfig
    dataset: Any
    split: str

    @property
    def name(self) -> str:
        """What a person calls it: the eval's name and its label."""
        return f"{self.config.task}-{self.config.label}" if self.config.label else self.config.task


class LeftOut(NamedTuple):
    """An eval of a suite that was not run on some data, and why."""

    name: str
    data: str
    why: str


class Plan(NamedTuple):
    """What is to be run, and what of the suite does not suit."""

    tasks: list[Task]
    left_out: list[LeftOut]


class Outcome(NamedTuple):
    """A task's result and the file that keeps it. `known`: it was there already. `error`: why there is none."""

    task: Task
    result: EvalResult | None
    path: Path | None
    known: bool = False
    error: str = ""


def plan(model: Pretrained, suite: str, data: Sequence[str], split: str = "", options: Sequence[str] = ()) -> Plan:
    """The tasks of "quick", "full" or a TOML file, for each of the datasets `data`; `options` are field=value of evals.

    A file names its tasks and, where it wants to, their data; an eval that cannot be run there is an error when it is
    run. Of the two suites those that do not suit are left out, with the reason.
    """
    if suite not in SUITES:
        return Plan(list(_from_file(Path(suite), data, split, options)), [])
    if not data:
        raise ConfigError(f"--suite {suite} must be given data; got none. Name a dataset with --data DIR.")
    tasks, left_out = [], []
    for spec in data:
        dataset = open_data(spec)
        name = dataset.held_out(split)
        for eval_name in names():
            plain = config_for(eval_name)
            fields = getattr(plain, suite)
            if fields is None:
                continue
            label = suite if suite == "quick" else ""  # so that fewer items never take the place of all
            placed = plain.replace(**{"label": label, **fields, "data": str(spec), "split": name})
            config = _with_options(placed, options)
            why = config.unsuited(model, dataset.split(name))
            if why:
                left_out.append(LeftOut(eval_name, str(spec), why))
            else:
                tasks.append(Task(config, dataset, name))
    _refuse_unknown(options, [t.config for t in tasks] or [config_for(n) for n in names()])
    return Plan(tasks, left_out)


def named(evals: Sequence[str], data: Sequence[str], split: str, options: Sequence[str]) -> Plan:
    """The tasks that are asked for by name, on each of the datasets; an option must be one that some of them has."""
    plain = settings_of(evals, options)
    tasks = []
    for spec in data:
        dataset = open_data(spec)
        for config in plain:
            name = dataset.held_out(split)
            tasks.append(Task(config.replace(data=str(spec), split=name), dataset, name))
    return Plan(tasks, [])


def settings_of(evals: Sequence[str], options: Sequence[str]) -> list[EvalConfig]:
    """The settings of evals by name, before any data. Raises ConfigError for a name or an option that is none."""
    plain = [config_for(name) for name in dict.fromkeys(evals)]
    _refuse_unknown(options, plain)
    return [_with_options(config, options) for config in plain]


def key_of(model: Pretrained, task: Task) -> str:
    """A hash of what a result depends on: the model's weights and settings, the data's content, the eval's settings
    and the code of its file."""
    settings = {k: v for k, v in to_dict(task.config).items() if k != "data"}
    code = inspect.getsource(inspect.getmodule(type(task.config)) or type(task.config))
    words = [path.read_bytes().hex() for name in WORDS if (path := beside(task.dataset.path, name)) is not None]
    whole = [__version__, model.fingerprint, task.dataset.fingerprint, task.split, settings, code, words]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:32]


def run(
    model: Pretrained, tasks: Sequence[Task], out: str | PathLike[str], again: bool = False, keep_going: bool = False
) -> Iterator[Outcome]:
    """Each task's outcome as it is there, results being kept in OUT/evals; under torchrun, those of this process.

    `again`: also what is known already. `keep_going`: an eval that cannot be run is an outcome with its reason instead
    of an error. Images that several processes need are embedded first, each by one of them.
    """
    folder, _ = run_folder(out)
    model.memory = VectorMemory(folder / "evals" / "vectors" / model.fingerprint if model.fingerprint else None)
    todo = []
    for task in tasks:
        known = None if again else _known(model, task, out)
        if known is None:
            todo.append(task)
        elif rank() == 0:
            yield known
    if world_size() > 1:
        _embed_ahead(model, todo)
    for task in todo[rank() :: world_size()]:
        model.memory.refresh()
        try:
            result = task.config.build().run(model, task.dataset.split(task.split))
        except EvalError as error:
            if not keep_going:
                raise
            yield Outcome(task, None, None, error=str(error))
            continue
        finally:
            model.memory.save()
        finite = {n: e for n, e in result.metrics.items() if all(map(math.isfinite, (e.value, e.low, e.high)))}
        result = result.replace(key=key_of(model, task), metrics=finite)  # JSON knows no NaN
        yield Outcome(task, result, save(result, out))
    barrier()


def _known(model: Pretrained, task: Task, out: str | PathLike[str]) -> Outcome | None:
    """The kept result of a task, if nothing that it depends on has changed."""
    label = {"label": task.config.label}
    probe = EvalResult(task=task.config.task, data=task.config.data, split=task.split, metrics={}, settings=label)
    path = result_path(probe, out)
    if not path.is_file():
        return None
    result = read_result(path)
    return Outcome(task, result, path, known=True) if result.key == key_of(model, task) else None


def _embed_ahead(model: Pretrained, tasks: Iterable[Task]) -> None:
    """Embed this process's share of the images of every dataset, and wait for the others."""
    assert model.memory is not None
    if "embed_image" in model.capabilities:
        format = model.model.config.image_format
        splits = {(str(t.dataset.path), t.split): t for t in tasks if "embed_image" in _reads(t) or _scores(t)}
        for task in splits.values():
            split = task.dataset.split(task.split)
            mine = choose_places(split, task.config.max_items)[rank() :: world_size()]
            for start in range(0, len(mine), SHARE):
                read_gallery(model, ImageReader(split, format, 64), mine[start : start + SHARE], "the suite", True)
                model.memory.save()
    barrier()
    model.memory.refresh()


def _reads(task: Task) -> tuple[str, ...]:
    return task.config.build().needs


def _scores(task: Task) -> bool:
    return "score" in _reads(task)


def _from_file(path: Path, data: Sequence[str], split: str, options: Sequence[str]) -> Iterator[Task]:
    """The tasks of a TOML file: a table [[task]] each, with `eval`, perhaps `data` (from the file's folder on), and any
    field of that eval's settings."""
    try:
        tables = tomllib.loads(path.read_text("utf-8")).get("task")
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        known = " or ".join(SUITES)
        raise ConfigError(f"a suite must be {known}, or a TOML file of tasks; got {path} ({error}).") from None
    if not isinstance(tables, list) or not all(isinstance(t, dict) and "eval" in t for t in tables) or not tables:
        raise ConfigError(
            f"{path} must hold at least one [[task]] with an eval; got {tables!r}. Write for example:\n"
            '[[task]]\neval = "retrieval"\ndata = "held_out"\ncaptions = "all"'
        )
    opened: dict[str, Any] = {}
    for table in tables:
        given = table.get("data")
        places = [_from_here(path.parent, given)] if given else data
        if not places:
            raise ConfigError(f"the task {table['eval']} of {path} must have data; it names none. Add it, or --data.")
        fields = {k: _tupled(v) for k, v in table.items() if k not in ("eval", "data", "split")}
        for spec in places:
            dataset = opened.setdefault(spec, open_data(spec))
            name = dataset.held_out(table.get("split", split))
            config = config_for(table["eval"], **fields, data=spec, split=name)
            yield Task(_with_options(config, options), dataset, name)


def _from_here(folder: Path, spec: str) -> str:
    """Data that a file in `folder` names: from there on, if it lies there."""
    place, options = split_spec(spec)
    found = (folder / place).resolve()
    return ",".join([str(found), *(f"{k}={v}" for k, v in options.items())]) if found.exists() else spec


def _tupled(value: Any) -> Any:
    return tuple(_tupled(v) for v in value) if isinstance(value, list) else value


def _with_options(config: EvalConfig, options: Sequence[str]) -> EvalConfig:
    """The settings with those options that they have a field for."""
    mine = [o for o in options if "=" not in o or o.partition("=")[0].split(".")[0] in type(config).model_fields]
    changed = override(config, mine) if mine else config
    assert isinstance(changed, EvalConfig)
    return changed


def _refuse_unknown(options: Sequence[str], configs: Sequence[EvalConfig]) -> None:
    """Raise ConfigError for an option that none of the evals has a field for."""
    for option in options:
        name, equals, _ = option.partition("=")
        if equals and not any(name.split(".")[0] in type(config).model_fields for config in configs):
            known = dict.fromkeys(
                f for config in configs for f in type(config).model_fields if f not in ("data", "split", "max_items")
            )
            evals = ", ".join(dict.fromkeys(c.task for c in configs))
            raise ConfigError(
                f"a setting must be one that {evals} has; got {name!r}, which would have no effect. There are: "
                f"{', '.join(known)}."
            )
