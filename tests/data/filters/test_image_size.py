"""Sizes, ends included: as they were packed, or as they were before."""

import numpy as np
import pytest

from diptych.data.filters.image_size import ImageSizeConfig
from tests.data.curation_pools import all_rows, packed_pool


def test_reasons(tmp_path) -> None:
    rows = all_rows(packed_pool(tmp_path / "d", [["a"], ["b"], ["c"]]))[0]  # 8, 9 and 10 wide, 8 high
    alive = np.ones(3, dtype=bool)

    def said(**settings) -> list[str]:
        return ImageSizeConfig(**settings).build().reasons(rows, alive)

    assert said() == [""] * 3
    assert said(min_side=8, max_side=9, max_aspect=1.25) == ["", "", "large_image"]
    assert said(min_side=9) == ["small_image"] * 3
    assert said(max_aspect=1.2) == ["", "", "narrow_image"]
    assert said(max_aspect=1.25) == [""] * 3


@pytest.mark.parametrize(
    "of, expected", [("original", ["", "small_image", "small_image"]), ("packed", ["small_image"] * 3)]
)
def test_the_original_size_counts_where_it_is_known(of, expected, tmp_path) -> None:
    metas = [{"original_width": 300, "original_height": 200.0}, {}, {"original_width": "wide", "original_height": True}]
    rows = all_rows(packed_pool(tmp_path / "d", [["a"], ["b"], ["c"]], metas))[0]
    assert ImageSizeConfig(min_side=200, of=of).build().reasons(rows, np.ones(3, dtype=bool)) == expected
    some = ImageSizeConfig(min_side=200).build().reasons(rows, np.array([False, True, True]))
    assert some[1:] == ["small_image"] * 2
