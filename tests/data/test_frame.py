import numpy as np
import pytest
import torch

from diptych.core.image_format import ImageFormat
from diptych.data.decode import resize_image
from diptych.data.frame import Frame

SIZES = ((64, 64), (100, 60), (60, 100), (333, 47), (24, 24), (23, 31), (2000, 60))


def _format(resize, side=48):
    return ImageFormat(resolution=side, resize=resize, interpolation="bilinear", fill=(0, 0, 0))


def _extent(weights):
    """Where a row of weights (0..1) that is one block begins and ends, from its mass and its middle."""
    mass, middle = weights.sum(), (weights * (np.arange(len(weights)) + 0.5)).sum() / weights.sum()
    return middle - mass / 2, middle + mass / 2


@pytest.mark.parametrize("resize", ["squash", "pad", "crop"])
@pytest.mark.parametrize("width,height", SIZES)
def test_a_painted_box_is_where_it_is_said_to_be(resize, width, height):
    format = _format(resize)
    frame = Frame.of(width, height, format)
    x0, x1 = round(width * 0.42), max(round(width * 0.42) + 2, round(width * 0.62))
    y0, y1 = round(height * 0.3), max(round(height * 0.3) + 2, round(height * 0.7))
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[:, y0:y1, x0:x1] = 200
    seen = resize_image(image, format)[0].double().numpy() / 200
    left, top, right, bottom = frame.to_square(np.array([[x0, y0, x1, y1]], float))[0]
    if 1 < left < right - 2 < 45 and 1 < top < bottom - 2 < 45:  # wholly inside, its rim too
        across, down = seen.sum(0) / (bottom - top), seen.sum(1) / (right - left)
        assert _extent(across) == pytest.approx((left, right), abs=0.1)
        assert _extent(down) == pytest.approx((top, bottom), abs=0.1)
    back = frame.to_image(np.array([[left, top], [right, bottom]]))
    if 0 < left < right < 48 and 0 < top < bottom < 48:
        np.testing.assert_allclose(back, [[x0, y0], [x1, y1]])


def test_most_sizes_were_looked_at():
    """The test above looks only where the box is wholly seen: that is so of all but a long crop."""
    for resize in ("squash", "pad", "crop"):
        whole = 0
        for width, height in SIZES:
            box = Frame.of(width, height, _format(resize)).to_square(
                np.array([[0.42 * width, 0.3 * height, 0.62 * width, 0.7 * height]])
            )[0]
            whole += bool((box > 1).all() and (box < 47).all() and box[2] - box[0] > 1 and box[3] - box[1] > 1)
        assert whole >= 5


@pytest.mark.parametrize("width,height", SIZES)
def test_padding_is_told_from_the_image(width, height):
    format = _format("pad")
    image = torch.full((3, height, width), 200, dtype=torch.uint8)
    shown = resize_image(image, format)[0].numpy() == 200
    x0, y0, x1, y1 = Frame.of(width, height, format).seen()
    expected = np.zeros((48, 48), bool)
    expected[y0:y1, x0:x1] = True
    np.testing.assert_array_equal(shown, expected)
    for resize in ("squash", "crop"):
        assert Frame.of(width, height, _format(resize)).seen() == (0, 0, 48, 48)


def test_centres_of_pixels():
    centres = Frame.of(96, 96, _format("squash")).centres()
    assert centres.shape == (48, 48, 2)
    assert centres[0, 0].tolist() == [1, 1]
    assert centres[2, 47].tolist() == [95, 5]  # rows first, x before y
