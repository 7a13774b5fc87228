"""Copies are other files of the same picture, each altered in the way that is told."""

import numpy as np
import pytest

from diptych.data.decode import decode_image, encode_png
from diptych.studies.planted_copies import WAYS, saved_anew
from tests.data.pictures import encode, jpg, pixels, png


def _copies(data: bytes, count: int = 24) -> list[tuple[bytes, str, str]]:
    return [saved_anew(data, "test", i) for i in range(count)]


@pytest.mark.parametrize("data", [png(0, height=48, width=64), jpg(1, height=48, width=64)], ids=["png", "jpg"])
def test_every_way_comes_and_does_what_it_says(data: bytes) -> None:
    before = decode_image(data)
    copies = _copies(data)
    assert {way for _, _, way in copies} == set(WAYS)
    assert copies == _copies(data)
    for made, format, way in copies:
        after = decode_image(made)
        assert made != data
        assert format == ("jpg" if way == "compressed" else "png")
        if way == "compressed":
            assert after.shape == before.shape
            assert (after.float() - before.float()).abs().mean() < 20
        elif way == "recoloured":
            assert after.shape == before.shape
            ratio = float(after.float().mean() / before.float().mean())
            assert 0.7 < ratio < 1.3
        elif way == "cropped":
            assert all(0.9 < a / b < 1 for a, b in zip(after.shape[1:], before.shape[1:], strict=True))
            height, width = after.shape[1:]
            windows = [
                before[:, y : y + height, x : x + width]
                for y in range(before.shape[1] - height + 1)
                for x in range(before.shape[2] - width + 1)
            ]
            assert any((w == after).all() for w in windows)
        else:
            assert all(0.35 < a / b < 0.85 for a, b in zip(after.shape[1:], before.shape[1:], strict=True))


def test_what_a_way_cannot_change_is_compressed() -> None:
    black = encode(np.zeros((6, 6, 3), np.uint8))  # too small to be cropped, and black whatever its brightness
    assert {way for _, _, way in _copies(black)} == {"compressed"}
    assert all(made != black for made, _, _ in _copies(black))


def test_a_copy_of_a_copy_is_another_file() -> None:
    data = encode_png(decode_image(encode(pixels(3))))
    made, _, _ = saved_anew(data, 0)
    assert saved_anew(made, 0)[0] != made
