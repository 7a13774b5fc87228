"""What there is of a kind is what lies in its folder."""

import pytest

from diptych import evals, recipes
from diptych.core.errors import ConfigError
from diptych.core.folder import Folder, did_you_mean, functions_of, modules_of
from diptych.evals.eval import EvalConfig
from diptych.evals.retrieval import RetrievalConfig

EVALS = Folder(evals, EvalConfig, "an eval")


def test_files_with_a_config_are_found_and_parts_are_not() -> None:
    assert EVALS.find("retrieval") is RetrievalConfig
    assert {"retrieval", "zero_shot"} <= set(EVALS.names())
    assert "scoring" in modules_of(evals)
    assert "scoring" not in EVALS.names()  # its config is abstract
    for name in ("scoring", "retreival"):
        with pytest.raises(ConfigError, match=f"an eval must be one of Diptych's; got '{name}'"):
            EVALS.find(name)
    with pytest.raises(ConfigError, match="Did you mean 'retrieval'"):
        EVALS.find("retreival")


def test_functions_are_named_after_file_and_name() -> None:
    found = functions_of(recipes, "find")
    assert "clip:tiny" in found
    assert not any(":_" in name or name.startswith("find:") for name in found)


def test_what_is_said_of_a_name_that_is_none() -> None:
    assert did_you_mean("blu", ["blue", "red"]) == "Did you mean 'blue'?"
    assert did_you_mean("xyz", ["blue", "red"]) == "There are: blue, red."
    assert did_you_mean("xyz", []) == "There are: none."
