"""Sizes as they were packed, ends included."""

import numpy as np

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
