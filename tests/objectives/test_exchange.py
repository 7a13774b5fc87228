from pathlib import Path

import pytest
import torch

from diptych.objectives.exchange import Gathered, Ring, exchange
from tests.objectives import ranks


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> list[dict]:
    return ranks.compute_together(Path(tmp_path_factory.mktemp("three_processes")))


def close(found, expected, what: str) -> None:
    """The same sums in another order: a few units in the last place of float32."""
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=3e-6, msg=lambda m: f"{what}: {m}")


@pytest.mark.dist
@pytest.mark.parametrize("how", ["gather", "ring", "by size, small tiles", "ring, image frozen"])
def test_three_processes_have_value_and_gradient_of_one(together, how):
    frozen = "image" if "frozen" in how else ""
    for name, alone in ranks.results("auto", frozen).items():
        mine = [r[how][name] for r in together]
        close(sum(x["total"] for x in mine) / len(mine), alone["total"], name)
        for part, expected in alone["parts"].items():
            close(sum(x["parts"][part] for x in mine) / len(mine), expected, f"{name} {part}")
        assert alone["vectors"].keys() == {"image", "text"} - {frozen}
        for k, expected in alone["vectors"].items():
            # W dL/dx on each rank, of which DDP takes the mean
            close(torch.cat([x["vectors"][k] for x in mine]) / len(mine), expected, f"{name} {k}")
        assert "log_logit_scale" in alone["numbers"]
        assert ("logit_bias" in alone["numbers"]) == name.startswith("sigmoid")
        for k, expected in alone["numbers"].items():
            close(sum(x["numbers"][k] for x in mine) / len(mine), expected, f"{name} {k}")
        for x in mine:
            assert x["health"] == pytest.approx(alone["health"], rel=1e-5, abs=1e-6)


@pytest.mark.dist
@pytest.mark.parametrize("how", ["gather", "ring"])
def test_columns_visit_every_rank_and_their_gradient_comes_home(together, how):
    for r, found in enumerate(together):
        seen = found["columns"][how]["seen"]
        columns = torch.cat([block for _, block in sorted(seen, key=lambda x: x[0])])
        assert columns[:, 0].tolist() == [0, 0, 1, 1, 2, 2]
        assert len(seen) == (1 if how == "gather" else 3)
        # from ranks 0, 1, 2: (1 + 2 + 3) (number of the column + 1)
        assert found["columns"][how]["gradient"][:, 0].tolist() == [6 * (2 * r + 1), 6 * (2 * r + 2)]


def test_a_single_process_exchanges_nothing():
    own = torch.ones(4, 2)
    for moving in (Gathered(own), Ring(own)):
        ((first, block),) = moving.blocks()
        assert first == 0
        assert block.data_ptr() == own.data_ptr()
        for _, _, gradient in moving.blocks_with_gradient():
            gradient += 2
        assert moving.gradient.tolist() == [[2, 2]] * 4
    assert isinstance(exchange(own, "ring"), Gathered)
