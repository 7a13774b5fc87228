"""Augmentation equals its plain twin, and what a sample becomes never depends on its company."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.core.errors import ConfigError
from diptych.core.image_format import ImageFormat
from diptych.core.seeds import fold
from diptych.data.augment import NO_AUGMENTATION, AugmentConfig, augment, crop_box, random_resized_crops, resize_images
from diptych.data.decode import resize_image
from diptych.data.draws import Draws
from tests.data.tiny_split import picture
from tests.reference import augment as twin

GEOMETRY = {"rotate": 25, "zoom": (0.8, 1.2), "stretch": 0.2, "shear": 0.15, "translate": 0.1}
COLOUR = {
    "brightness": 0.2,
    "contrast": 0.3,
    "saturation": 0.4,
    "hue": 0.2,
    "channel": 0.2,
    "grayscale": 0.2,
    "invert": 0.3,
}
REST = {"lighting": 0.2, "blur": 0.5, "noise": 0.05, "background": 0.5}
ALL = AugmentConfig(
    crop_scale=(0.4, 1.0), flip=0.5, elastic=0.05, gamma=0.3, cutout=0.5, **GEOMETRY, **COLOUR, **REST
)  # fmt: skip


def keys(count: int) -> list[int]:
    return [fold(0, "augment", n) for n in range(count)]


def smooth(i: int, side: int) -> torch.Tensor:
    """A picture without sharp noise, on a white ground at its left."""
    small = picture(i, 4, 4)
    image = resize_image(small, ImageFormat(resolution=side))
    image[:, :, :3] = 255
    return image


@pytest.mark.parametrize(
    "settings",
    [GEOMETRY, {**GEOMETRY, "border": "edge"}, COLOUR, REST, {**GEOMETRY, **COLOUR, **REST}],
    ids=["geometry", "edge", "colour", "rest", "all"],
)
def test_second_stage_equals_its_twin(settings: dict[str, object]) -> None:
    config = AugmentConfig(crop_scale=None, **settings)  # type: ignore[arg-type]
    images, format = [smooth(i, 12) for i in range(6)], ImageFormat(resolution=12)
    result = augment(images, keys(6), config, format)
    for image, key, got in zip(images, keys(6), result, strict=True):
        expected = twin.vary(image.numpy(), key, config, format.fill)
        assert np.abs(expected - got.numpy()).max() <= 0.51, "half a level is rounding, the rest float32"


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("height, width", [(40, 56), (20, 9)])
def test_random_resized_crop_equals_pillow(interpolation: str, height: int, width: int) -> None:
    config = AugmentConfig(crop_scale=(0.3, 1.0))
    format = ImageFormat(resolution=16, interpolation=interpolation)  # type: ignore[arg-type]
    images, draws = [picture(i, height, width) for i in range(8)], Draws(keys(8))
    for image, u, got in zip(
        images, draws.uniform("crop", 40), random_resized_crops(images, draws, config, format), strict=True
    ):
        box = crop_box(height, width, u, (0.3, 1.0), config.crop_ratio)
        expected = twin.crop_and_resize(image.numpy(), box, 16, interpolation == "bicubic")
        apart = np.abs(expected.astype(int) - got.numpy().astype(int)).max()
        assert apart <= 1, "both work in fixed point, rounding after each of the two passes"


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 2**62), st.floats(0.05, 1.0))
def test_crops_lie_inside(height: int, width: int, key: int, low: float) -> None:
    top, left, h, w = crop_box(height, width, Draws([key]).uniform("crop", 40)[0], (low, 1.0), (3 / 4, 4 / 3))
    assert 0 <= top <= top + h <= height
    assert 0 <= left <= left + w <= width
    assert h >= 1
    assert w >= 1


def test_crops_have_the_area_and_aspect_asked_for() -> None:
    boxes = [crop_box(300, 300, u, (0.25, 0.5), (0.5, 2.0)) for u in Draws(keys(300)).uniform("crop", 40)]
    areas = np.array([h * w for _, _, h, w in boxes]) / 300**2
    aspects = np.log([w / h for _, _, h, w in boxes])
    assert areas.min() >= 0.245
    assert areas.max() <= 0.505
    assert abs(areas.mean() - 0.375) < 0.02
    assert abs(aspects.mean()) < 0.1
    assert np.abs(aspects).max() <= np.log(2) + 0.02


@pytest.mark.parametrize("side", [16, 13])
def test_a_sample_is_the_same_in_any_company(side: int) -> None:
    images = [picture(i, 24 + 4 * (i % 3 == 0), 24) for i in range(30)]
    format = ImageFormat(resolution=side)
    whole = augment(images, keys(30), ALL, format)
    for part in (slice(0, 1), slice(7, 8), slice(3, 20), slice(29, 30)):
        assert torch.equal(whole[part], augment(images[part], keys(30)[part], ALL, format))
    assert len({i.numpy().tobytes() for i in whole}) == 30


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images, format = [picture(i, 16, 16) for i in range(9)], ImageFormat(resolution=16)
    whole = augment(images, keys(9), ALL, format)
    monkeypatch.setattr("diptych.data.augment._CHUNK_PIXELS", 2 * 16 * 16)
    assert torch.equal(whole, augment(images, keys(9), ALL, format))


@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
@pytest.mark.parametrize("size", [(24, 24), (24, 18), (10, 10)])
def test_resizing_together_equals_one_by_one(resize: str, size: tuple[int, int]) -> None:
    format = ImageFormat(resolution=10, resize=resize)  # type: ignore[arg-type]
    images = [picture(i, *size) for i in range(5)]
    out = torch.empty((5, 3, 10, 10), dtype=torch.uint8)
    resize_images(images, format, out)
    assert torch.equal(out, torch.stack([resize_image(i, format) for i in images]))


def test_inputs_are_left_alone_and_nothing_means_nothing() -> None:
    images = [picture(i, 16, 16) for i in range(4)]
    copies = [i.clone() for i in images]
    assert torch.equal(augment(images, keys(4), NO_AUGMENTATION, ImageFormat(resolution=16)), torch.stack(copies))
    augment(images, keys(4), ALL.replace(crop_scale=None), ImageFormat(resolution=16))
    assert all(torch.equal(a, b) for a, b in zip(images, copies, strict=True))
    assert augment([], [], ALL, ImageFormat(resolution=16)).shape == (0, 3, 16, 16)


def test_one_operation_leaves_the_draws_of_the_others() -> None:
    images, format = [smooth(i, 16) for i in range(4)], ImageFormat(resolution=16)
    turned = augment(images, keys(4), AugmentConfig(rotate=20), format)
    both = augment(images, keys(4), AugmentConfig(rotate=20, cutout=1.0), format)
    assert (turned == both).float().mean() > 0.5, "all but the painted patch"


def test_flip_gamma_and_cutout_do_what_they_say() -> None:
    images, format = [smooth(i, 16) for i in range(3)], ImageFormat(resolution=16)
    plain = torch.stack(images)
    assert torch.equal(augment(images, keys(3), AugmentConfig(crop_scale=None, flip=1.0), format), plain.flip(-1))
    gamma = augment(images, keys(3), AugmentConfig(crop_scale=None, gamma=0.5), format)
    for i, log in enumerate(Draws(keys(3)).uniform("gamma", 1, -0.5, 0.5)[:, 0]):
        expected = (plain[i].double() / 255) ** float(np.exp(log)) * 255
        assert (gamma[i] - expected).abs().max() <= 0.51
    cut = augment(images, keys(3), AugmentConfig(crop_scale=None, cutout=1.0), format)
    changed = (cut != plain).any(1).flatten(1).float().mean(1)
    assert ((changed > 0.01) & (changed < 0.17)).all()


def test_no_flip_by_default_and_ranges_are_checked() -> None:
    assert AugmentConfig().flip == 0
    assert not AugmentConfig().moves
    assert not AugmentConfig().colours
    with pytest.raises(ConfigError, match=r"must be \(low, high\) with 0 < low <= high; got \(1.2, 0.8\)"):
        AugmentConfig(zoom=(1.2, 0.8))
    with pytest.raises(ConfigError, match=r"AugmentConfig.flip must be .*1; got 2"):
        AugmentConfig(flip=2)
