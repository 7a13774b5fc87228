"""A batch's pixels equal those of the plain path, one whole image after another; scaled decoding stays near."""

from pathlib import Path

import numpy as np
import pytest
import torch

from diptych.core.image_format import ImageFormat
from diptych.core.record import Record
from diptych.data.augment import NO_AUGMENTATION, AugmentConfig, augment
from diptych.data.dataset import Split
from diptych.data.decode import decode_image, eighths_for, encode_jpeg, resize_image
from diptych.data.pixels import Pixels
from diptych.data.samples import sample_keys
from diptych.data.shards import ShardWriter
from diptych.data.views import Views, scaled_box
from tests.data import tiny_split

KEYS = sample_keys(0, 12, 3)
CROPS = AugmentConfig(crop_scale=(0.3, 1.0), flip=0.5, saturation=0.4)


def filled(views: Views, records: range, format: ImageFormat) -> torch.Tensor:
    batch = views.open(KEYS[: len(records)], format)
    for row, record in enumerate(records):
        batch.add(row, record)
    return batch.finished()


@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
@pytest.mark.parametrize("config", [NO_AUGMENTATION, CROPS], ids=["plain", "crops"])
@pytest.mark.parametrize("sizes", [((12, 12),), ((9, 16),), ((12, 12), (9, 16)), ((8, 8),)])
def test_equal_to_the_plain_path(
    tmp_path: Path, config: AugmentConfig, resize: str, sizes: tuple[tuple[int, int], ...]
) -> None:
    split, format = tiny_split.opened(tmp_path, 12, sizes=sizes), ImageFormat(resolution=8, resize=resize)  # type: ignore[arg-type]
    expected = augment([decode_image(split.image_bytes(i)) for i in range(12)], KEYS, config, format)
    for pixels in (None, Pixels(split, decode_image, 1)):
        found = filled(Views(split, pixels, config, scaled=False), range(12), format)
        assert found.is_contiguous()
        assert torch.equal(found, expected)


def photo(i: int, height: int, width: int) -> torch.Tensor:
    """Smooth shapes with a little grain, as cameras give them."""
    small = resize_image(tiny_split.picture(i, 5, 6), ImageFormat(resolution=max(height, width), resize="squash"))
    grain = tiny_split.picture(100 + i, height, width).float() / 255 * 6 - 3
    return (small[:, :height, :width].float() + grain).clamp(0, 255).byte()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Split:
    folder = tmp_path_factory.mktemp("photos")
    with ShardWriter(folder) as writer:
        for i, (height, width) in enumerate([(480, 640), (479, 641), (300, 900), (700, 333)]):
            writer.add(
                Record.pair(f"k{i}", encode_jpeg(photo(i, height, width), 90), "jpg", ("x",)), sizes=[(width, height)]
            )
    return Split("train", [folder / "00000.tar"])


@pytest.mark.parametrize("config", [NO_AUGMENTATION, AugmentConfig()], ids=["plain", "crops"])
@pytest.mark.parametrize("side", [24, 48, 120])
def test_scaled_decoding_is_off_by_about_a_grey_level(photos: Split, config: AugmentConfig, side: int) -> None:
    format = ImageFormat(resolution=side)
    full = filled(Views(photos, None, config, scaled=False), range(4), format).float()
    scaled = filled(Views(photos, None, config, scaled=True), range(4), format).float()
    apart = (full - scaled).abs()
    if side == 120:  # 480 x 640 crops have not twice 2 x 120 pixels: those images are whole
        assert torch.equal(full[2], scaled[2])
    else:
        assert apart.max() > 0
    assert apart.mean() < 1.2, "half a grey level on photographs; these have sharper edges for their size"


def test_the_scale_follows_the_crop_that_was_drawn(photos: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def noted(data: bytes, eighths: int = 8) -> torch.Tensor:
        asked.append(eighths)
        return decode_image(data, eighths=eighths)

    monkeypatch.setattr("diptych.data.views.decode_image", noted)
    config, format = AugmentConfig(crop_scale=(0.02, 1.0)), ImageFormat(resolution=40)
    views = Views(photos, None, config, scaled=True)
    batch = views.open(KEYS, format)
    for row in range(12):
        batch.add(row, 0)
    crops = batch._crops
    assert crops is not None
    boxes = [config.box(480, 640, u) for u in crops]
    assert asked == [eighths_for(min(box[2:]), 80) for box in boxes]
    assert len(set(asked)) >= 2


def test_boxes_keep_their_place_at_every_scale() -> None:
    generator = np.random.default_rng(0)
    for _ in range(300):
        height, width = generator.integers(8, 500, 2).tolist()
        h, w = int(generator.integers(1, height + 1)), int(generator.integers(1, width + 1))
        box = int(generator.integers(0, height - h + 1)), int(generator.integers(0, width - w + 1)), h, w
        for eighths in (1, 2, 4):
            small = -(-height * eighths // 8), -(-width * eighths // 8)
            top, left, h2, w2 = scaled_box(box, eighths, *small)
            assert 0 <= top < top + h2 <= small[0]
            assert 0 <= left < left + w2 <= small[1]
            assert abs(top - box[0] * eighths / 8) <= 1
            assert abs(top + h2 - (box[0] + box[2]) * eighths / 8) <= 1.5
        assert scaled_box(box, 8, height, width) == box
