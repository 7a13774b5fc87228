"""What every recipe promises: it is a value that survives the disk, describes itself, and matches its golden file.

Golden files are written anew with ``UPDATE_GOLDEN=1 pytest tests/recipes``: look at the difference before committing.
"""

import os
from pathlib import Path

import pytest
import torch

from diptych.core.config import flatten, from_json, to_json
from diptych.recipes.find import recipe, recipes

GOLDEN = Path(__file__).parents[1] / "golden" / "recipes"
NAMES = sorted(recipes())


@pytest.mark.parametrize("name", NAMES)
def test_promises(name):
    run = recipe(name)
    assert (recipes()[name].__doc__ or "").strip()
    assert from_json(to_json(run)) == run
    with torch.device("meta"):
        model = run.model.build(49408)
        objective = run.objective.build(model)
    lines = [f"{k}: {v}" for k, v in flatten(run).items()]
    lines.append(f"parameters with a vocabulary of 49408: {sum(p.numel() for p in objective.parameters())}")
    text = "\n".join(lines) + "\n"
    golden = GOLDEN / f"{name.replace(':', '-')}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(text)
    assert golden.exists(), "a new recipe needs its golden file: UPDATE_GOLDEN=1 pytest tests/recipes"
    assert text == golden.read_text()
