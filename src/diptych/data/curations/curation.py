"""Curations by name, ``file:function`` of this folder, or in a TOML file of one's own.

splits = ["train"]

[[filter]]
name = "caption_length"
min_words = 3
"""

import json
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from diptych.core.config import flatten, override
from diptych.core.errors import ConfigError
from diptych.core.folder import did_you_mean, functions_of
from diptych.data import curations as folder
from diptych.data.curate import CurationConfig
from diptych.data.filters.filter import filter_config


def curations() -> dict[str, Callable[..., CurationConfig]]:
    """Every curation by its name: the public functions of the files here; each returns a CurationConfig."""
    return functions_of(folder, "curation")


def curation(name: str) -> CurationConfig:
    """The curation called `name`, or in the TOML file of that path. Raises ConfigError for neither."""
    if name.endswith(".toml"):
        return from_toml(Path(name))
    known = curations()
    if name not in known:
        raise ConfigError(
            f"a curation must be the name of one, or a .toml file; got {name!r}. {did_you_mean(name, known, 0.4)}"
        )
    return known[name]()


def with_settings(config: CurationConfig, assignments: Sequence[str]) -> CurationConfig:
    """The curation with settings of its filters as on the command line, each by its filter's name:
    ``caption_length.min_words=3``. Of filters that share a name, each is ``filters.NUMBER``, counted from 0; the
    curation's own setting is ``splits``. Raises ConfigError with the nearest name for what is none."""
    names, given, called = [f.name for f in config.filters], list[str](), dict[str, str]()
    for text in assignments:
        path, equals, value = text.partition("=")
        name, dot, field = path.partition(".")
        if not equals or not (dot or name in type(config).model_fields):
            raise ConfigError(
                f"a setting of a curation must be FILTER.FIELD=VALUE; got {text!r}. Example: caption_length.min_words=3"
            )
        if name in type(config).model_fields:
            given.append(text)
        elif names.count(name) == 1:
            called[f"filters.{names.index(name)}."] = f"{name}."
            given.append(f"filters.{names.index(name)}.{field}={value}")
        elif name in names:
            which = [f"filters.{n}.{field}" for n, other in enumerate(names) if other == name]
            raise ConfigError(f"{path} must name one filter; got several called {name}. Set {' or '.join(which)}.")
        else:
            raise ConfigError(
                f"{path} must name a filter of this curation; got {name!r}. {did_you_mean(name, dict.fromkeys(names))}"
            )
    try:
        found = override(config, given)
    except ConfigError as error:
        said = str(error)
        for number, name in called.items():  # as it was asked for
            said = said.replace(number, name)
        raise ConfigError(said) from None
    assert isinstance(found, CurationConfig)
    return found


def settings_of(config: CurationConfig) -> list[str]:
    """Every setting of a curation as `with_settings` takes it, with the value that it has."""
    names = [f.name for f in config.filters]
    lines = [f"splits={json.dumps(config.splits)}"]
    for number, one in enumerate(config.filters):
        prefix = one.name if names.count(one.name) == 1 else f"filters.{number}"
        lines += [f"{prefix}.{k}={json.dumps(v, ensure_ascii=False)}" for k, v in flatten(one).items()]
        if not type(one).model_fields:
            lines.append(f"{prefix} (nothing to set)")
    return lines


def from_toml(path: Path) -> CurationConfig:
    """The curation that a TOML file describes."""
    try:
        found: dict[str, Any] = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"a curation must be a .toml file that is there; got {path}. Check the path.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} must be TOML; got {error}.") from None
    unknown = sorted(set(found) - {"splits", "filter"})
    given = found.get("filter")
    if unknown or not isinstance(given, list) or not all(isinstance(f, dict) and "name" in f for f in given):
        raise ConfigError(
            f"{path} must hold [[filter]] tables, each with a name, and nothing else but splits; got "
            f'{", ".join(unknown) or "none of these"}. Example: [[filter]] / name = "caption_length" / min_words = 3'
        )
    filters = tuple(filter_config(str(f["name"]), **{k: v for k, v in f.items() if k != "name"}) for f in given)
    return CurationConfig(filters=filters, **({"splits": tuple(found["splits"])} if "splits" in found else {}))
