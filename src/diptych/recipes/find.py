"""Finds a recipe by name and resolves it with a user's settings. The folder is the registry."""

import json
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path

import diptych.recipes
from diptych.checkpoints.native import find_model, model_config
from diptych.core.config import from_json, override
from diptych.core.errors import ConfigError
from diptych.core.folder import functions_of
from diptych.models.model import ModelConfig
from diptych.train.config import RunConfig, stage_of
from diptych.train.parts import TOKENIZED, divided, field_of, settings_of, with_part
from diptych.train.run_folder import STAGES


def recipes() -> dict[str, Callable[[], RunConfig]]:
    """Every recipe by its name, ``file:function``: the public functions of the files here; each returns a RunConfig."""
    return functions_of(diptych.recipes, "find")


def recipe(name: str) -> RunConfig:
    """The run that a recipe describes, named after it. Raises ConfigError with the nearest name where there is none."""
    known = recipes()
    if name not in known:
        close = get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"a recipe must be one of {', '.join(known)}; got {name!r}. {hint}".rstrip())
    found = known[name]()
    before = tuple(run.replace(recipe=f"{name}/{run.stage}") for run in found.before)
    return found.replace(recipe=name, before=before)


def resolve(name: str, settings: list[str], resumed: Path | None = None) -> tuple[RunConfig, RunConfig]:
    """The recipe as it stands, and with ``field.sub=value`` settings applied; ``data=DIR`` is short for data.path.

    A stage's settings begin with its name (``align.train.lr=1e-3``); its data are the run's unless it has its own.
    `resumed` is the folder of a run that goes on: with ``init=`` or ``parts=``, model and tokenizer are then those that
    the run noted when it began, and the folders given are not read again: they may have been changed or be gone.
    """
    base = recipe(name)
    own, of_stages = _divided(base, settings)
    stages: dict[str, RunConfig] = {}
    for run in base.before:
        noted = None if resumed is None else resumed / STAGES / run.stage / "config.json"
        stages[run.stage] = _resolved(run, of_stages[run.stage], stages, noted)
    config = _resolved(base, own, stages, None if resumed is None else resumed / "config.json")
    path = config.data.paths[0]
    if not path:
        raise ConfigError(
            "data must be a packed dataset, or a table or folder of pairs; got nothing. "
            "Add data=DIR; `diptych corpus get emoji` brings one to try."
        )
    before = [r if r.data.paths[0] else r.replace(data=r.data.replace(path=path)) for r in stages.values()]
    return base, config.replace(before=tuple(before))


def _divided(base: RunConfig, settings: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """The settings of the run itself, and those of each run before it without its name: ``NAME.`` or ``before.0.``."""
    own: list[str] = []
    stages: dict[str, list[str]] = {run.stage: [] for run in base.before}
    names = list(stages)
    for text in settings:
        words = text.partition("=")[0].split(".")
        if words[0] == "before" and len(words) > 2 and words[1].isdigit() and int(words[1]) < len(names):
            stages[names[int(words[1])]].append(text.split(".", 2)[2])
        elif words[0] in stages and len(words) > 1:
            stages[words[0]].append(text.split(".", 1)[1])
        else:
            own.append(text)
    return own, stages


def _in_full(run: RunConfig, settings: list[str]) -> list[str]:
    """What ``data=DIR`` and ``parts.NAME=FOLDER`` are short for."""
    full, parts = [], dict(run.parts)
    for text in settings:
        path, _, value = text.partition("=")
        if path.startswith("parts."):
            parts[path.removeprefix("parts.")] = value
        else:
            full.append(f"data.path={value}" if path == "data" else text)
    return full if parts == run.parts else [*full, f"parts={json.dumps(parts)}"]


def _resolved(base: RunConfig, settings: list[str], stages: Mapping[str, RunConfig], noted: Path | None) -> RunConfig:
    """The overridden run; what its init and its parts bring (model, tokenizer) holds unless it is set as well.

    `stages` are the runs before it, resolved; `noted` is the config.json of this run where it was begun already.
    """
    settings = _in_full(base, settings)
    config = _overridden(base, settings)
    if not config.init and not config.parts:
        return config
    if noted is not None and noted.is_file():
        began = from_json(noted.read_text())
        if not isinstance(began, RunConfig):
            raise ConfigError(
                f"{noted} must hold the settings of a run; got a {type(began).__name__}. Start a new run."
            )
        base = base.replace(model=began.model, tokenizer=began.tokenizer)
    else:
        base = _with_given(base, config, stages)
    config = _overridden(base, settings)
    _check_stages_fit(config, stages)
    return config


def _overridden(base: RunConfig, settings: list[str]) -> RunConfig:
    config = override(base, settings)
    assert isinstance(config, RunConfig)
    return config


def _with_given(base: RunConfig, config: RunConfig, stages: Mapping[str, RunConfig]) -> RunConfig:
    """`base` with the model and the tokenizer of `config`'s init, and the settings of its parts."""
    if config.init:
        model, where = _model_of(config.init, stages)
        base = base.replace(model=model, tokenizer=where)
    read = [part for part in TOKENIZED if part in config.parts]
    for part, reference in config.parts.items():
        folder, name = divided(reference, part)
        theirs, where = _model_of(folder, stages)
        base = base.replace(model=with_part(base.model, part, theirs, name))
        if part == (read or [""])[0]:
            base = base.replace(tokenizer=where)
    return base


def _model_of(reference: str, stages: Mapping[str, RunConfig]) -> tuple[ModelConfig, str]:
    """The model's settings in a folder or of a stage, and where its tokenizer is."""
    name = stage_of(reference)
    if name:
        if name not in stages:
            raise ConfigError(
                f"{reference} must be a run before this one; there are: {', '.join(stages) or 'none'}. Name one of "
                "them, or a folder."
            )
        return stages[name].model, f"stage:{name}"
    folder = find_model(Path(reference))
    return model_config(folder), str(folder)


def _check_stages_fit(config: RunConfig, stages: Mapping[str, RunConfig]) -> None:
    """What comes from a stage must be as that stage makes it: said now and not when it has been trained for hours."""
    for part, reference in config.parts.items():
        folder, name = divided(reference, part)
        if (stage := stage_of(folder)) and stage in stages:
            made = stages[stage].model
            if getattr(config.model, field_of(config.model, part)) != settings_of(made, name):
                raise ConfigError(
                    f"model.{field_of(config.model, part)} must be what the stage {stage} makes; it was set to "
                    f"something else. Set it there: {stage}.model.{field_of(made, name) if name else ''}..."
                )
    if (stage := stage_of(config.init)) and stage in stages:
        made, mine = stages[stage].model, config.model
        # pixels may be of another size, and what is no weight may be set anew
        if type(mine) is not type(made) or _parts_of(mine) != _parts_of(made):
            raise ConfigError(
                f"model must be what the stage {stage} makes, from whose weights it starts; its parts were set to "
                f"something else. Set them there: {stage}.model..."
            )


def _parts_of(model: ModelConfig) -> dict[str, object]:
    found = {name: getattr(model, name) for name in type(model).model_fields}
    return {k: v for k, v in found.items() if k != "image_format" and not isinstance(v, (int, float, str, type(None)))}
