"""Curations by name, ``file:function`` of this folder, or in a TOML file of one's own.

splits = ["train"]

[[filter]]
name = "caption_length"
min_words = 3
"""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
