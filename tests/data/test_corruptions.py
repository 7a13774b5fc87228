import colorsys
import io

import numpy as np
import pytest
import torch
from PIL import Image

from diptych.core.errors import ConfigError
from diptych.data import corruptions
from diptych.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt


def _image(side=24, seed=0):
    """A smooth picture with a sharp square in it."""
    y, x = np.mgrid[0:side, 0:side] / side
    rows = np.stack([x, y, (x + y) / 2], 2) * 200 + 20
    rows[side // 4 : side // 2, side // 4 : side // 2] = (230, 10, 60)
    rows += np.random.default_rng(seed).uniform(0, 5, rows.shape)
    return torch.from_numpy(rows.astype(np.uint8)).permute(2, 0, 1)


def _float(image):
    return image.permute(1, 2, 0).numpy().astype(float) / 255


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_each_is_seeded_keeps_the_shape_and_grows_with_severity(kind):
    image = _image(64)
    away = []
    for severity in SEVERITIES:
        found = corrupt(image, kind, severity, "an image")
        assert (found.shape, found.dtype) == (image.shape, torch.uint8)
        assert torch.equal(found, corrupt(image.clone(), kind, severity, "an image"))
        away.append(float((found.float() - image.float()).abs().mean()))
    assert away[0] > 0
    assert away[0] < away[-1]
    if kind not in ("pixelate", "jpeg"):  # whose grids fall on a picture's edges by chance
        assert away == sorted(away)
    other = corrupt(image, kind, 3, "another image")
    assert torch.equal(other, corrupt(image, kind, 3, "an image")) == ("noise" not in kind)


def test_noise_has_the_published_size():
    grey = torch.full((3, 128, 128), 128, dtype=torch.uint8)
    for level, severity in enumerate(SEVERITIES[:3]):  # little of it is clipped
        spread = _float(corrupt(grey, "gaussian_noise", severity)).std()
        assert spread == pytest.approx(corruptions.GAUSSIAN[level], rel=0.03)
    for level, severity in enumerate(SEVERITIES):
        impulses = _float(corrupt(grey, "impulse_noise", severity))
        black, white = (impulses == 0).mean(), (impulses == 1).mean()
        assert black + white == pytest.approx(corruptions.IMPULSE[level], rel=0.05)
        assert black == pytest.approx(white, rel=0.15)
    counted = _float(corrupt(grey, "shot_noise", 1))
    assert counted.std() == pytest.approx((128 / 255 / 60) ** 0.5, rel=0.03)
    assert counted.mean() == pytest.approx(128 / 255, rel=0.01)


def test_brightness_is_that_of_hsv():
    image = _image(8)
    image[:, 0, 0] = 0  # black has no hue
    for level, severity in enumerate(SEVERITIES):
        expected = np.empty((8, 8, 3))
        for place in np.ndindex(8, 8):
            hue, saturation, value = colorsys.rgb_to_hsv(*_float(image)[place])
            expected[place] = colorsys.hsv_to_rgb(hue, saturation, min(1, value + corruptions.BRIGHTNESS[level]))
        np.testing.assert_allclose(_float(corrupt(image, "brightness", severity)), expected, atol=0.5 / 255 + 1e-9)


def test_contrast_pixelation_and_jpeg_by_hand():
    image = _image(20)
    x = _float(image)
    mean = x.mean((0, 1))
    np.testing.assert_allclose(_float(corrupt(image, "contrast", 3)), mean + 0.2 * (x - mean), atol=0.5 / 255 + 1e-9)
    pixelated = _float(corrupt(image, "pixelate", 2))  # half the side: boxes of two by two
    boxes = x.reshape(10, 2, 10, 2, 3).mean((1, 3)).repeat(2, 0).repeat(2, 1)
    np.testing.assert_allclose(pixelated, boxes, atol=1 / 255)
    stored = Image.fromarray(image.permute(1, 2, 0).numpy())
    buffer = io.BytesIO()
    stored.save(buffer, "JPEG", quality=15)
    np.testing.assert_array_equal(_float(corrupt(image, "jpeg", 3)) * 255, np.asarray(Image.open(buffer)))


def test_blurs_against_a_loop():
    image = _image(56)  # a quarter of the side for which radii are given
    x = _float(image)
    for kind in ("gaussian_blur", "defocus_blur"):
        found = _float(corrupt(image, kind, 5))
        for row, column in ((0, 0), (20, 14), (55, 30)):
            total, weight = np.zeros(3), 0.0
            for dy in range(-12, 13):
                for dx in range(-12, 13):
                    if kind == "gaussian_blur":
                        sigma = 6 / 4
                        w = np.exp(-(dy**2 + dx**2) / (2 * sigma**2)) if max(abs(dy), abs(dx)) <= 6 else 0.0
                    else:
                        w = min(max(10 / 4 + 0.5 - np.hypot(dy, dx), 0), 1)
                    r, c = row + dy, column + dx
                    r, c = (-1 - r if r < 0 else r), (-1 - c if c < 0 else c)
                    r, c = (111 - r if r > 55 else r), (111 - c if c > 55 else c)
                    total, weight = total + w * x[r, c], weight + w
            np.testing.assert_allclose(found[row, column], total / weight, atol=0.5 / 255 + 1e-6)


def test_a_picture_of_one_colour_has_nothing_to_lose():
    plain = torch.tensor([3, 77, 200], dtype=torch.uint8).view(3, 1, 1).expand(3, 16, 16).contiguous()
    for kind in ("defocus_blur", "gaussian_blur", "contrast", "pixelate"):
        for severity in SEVERITIES:
            assert torch.equal(corrupt(plain, kind, severity), plain)


def test_errors_say_what_there_is():
    with pytest.raises(ConfigError, match=r"must be one of gaussian_noise, .* at a severity of 1 to 5; got 'fog' at 1"):
        corrupt(_image(), "fog", 1)
    with pytest.raises(ConfigError, match="got 'jpeg' at 6"):
        corrupt(_image(), "jpeg", 6)
