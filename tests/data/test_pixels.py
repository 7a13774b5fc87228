"""Pixels in memory are the decoder's, and their size is known before they are made."""

from pathlib import Path

import pytest
import torch

from diptych.core.errors import ConfigError, DataError
from diptych.data.decode import decode_image
from diptych.data.pixels import Pixels, check_budget, pixel_megabytes
from tests.data import tiny_split


def test_pixels_equal_decoding(tmp_path: Path) -> None:
    split = tiny_split.opened(tmp_path, 9, sizes=((12, 12), (7, 15)))
    pixels = Pixels(split, decode_image, threads=2)
    assert pixels.bad == {}
    for i in range(9):
        assert torch.equal(pixels[i], decode_image(split.image_bytes(i)))
    assert pixels.megabytes == pixel_megabytes(split, 1.0) == 3 * (5 * 144 + 4 * 105) / 2**20


def test_what_cannot_be_decoded_is_kept_as_a_reason(tmp_path: Path) -> None:
    split = tiny_split.opened(tmp_path, 3)

    def decode(data: bytes) -> torch.Tensor:
        if data == split.image_bytes(1):
            raise DataError("broken")
        return decode_image(data)

    pixels = Pixels(split, decode, threads=1)
    assert pixels.bad == {1: "broken"}
    with pytest.raises(DataError, match="broken"):
        pixels[1]
    other = Pixels(split, lambda data: torch.zeros(3, 2, 2, dtype=torch.uint8), threads=1)
    assert set(other.bad) == {0, 1, 2}, "an image of another size than its index says"


def test_a_budget_that_is_too_small_is_named(tmp_path: Path) -> None:
    split = tiny_split.opened(tmp_path, 40, sizes=((100, 100),))
    check_budget(split, 2.0)
    with pytest.raises(ConfigError, match=r"cache_mb must be at least 1 .*; got 0"):
        check_budget(split, 0.4)
