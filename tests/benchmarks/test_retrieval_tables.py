"""Planted ranks are what the vectors have, and a wrong rank is seen."""

import numpy as np
import pytest
import torch
from benchmarks.retrieval_memory import one
from benchmarks.retrieval_tables import check, write_tables

from diptych.evals.ranking import Matches
from diptych.evals.vector_ranks import vector_ranks


def test_ranks_are_as_planted(tmp_path):
    write_tables(tmp_path, 500, 48, lost=0.25)  # the last family is not whole
    images, texts = (np.load(tmp_path / f"{name}.npy") for name in ("images", "texts"))
    assert np.linalg.norm(np.concatenate([images, texts]), axis=1) == pytest.approx(1, abs=1e-6)
    matches = Matches.of(list(range(500)), [[str(i)] for i in range(500)])
    found = vector_ranks(torch.from_numpy(images), torch.from_numpy(texts), matches)
    ranks = np.stack([found.i2t.numpy(), found.t2i.numpy()])
    np.save(tmp_path / "ranks.npy", ranks)
    assert check(tmp_path, 0.25, 500) == "384 planted ranks each way are as planted, 116 others as counted in float64"
    for family, place in ((0, 3), (3, 2)):  # a planted one, and one of a family whose texts are random
        row = int(np.flatnonzero(np.load(tmp_path / "number.npy") == 16 * family + place)[0])
        wrong = ranks.copy()
        wrong[1, row] += 1
        np.save(tmp_path / "ranks.npy", wrong)
        with pytest.raises(ValueError, match="t2i"):
            check(tmp_path, 0.25, 500)


def test_what_cannot_fit_is_not_tried(tmp_path):
    assert "5,0" in one("clip_benchmark", 1_000_000, tmp_path, 1)["error"]  # 5 TB
