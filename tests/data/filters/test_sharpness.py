"""Blur, brightness and information beside an independent reading of cleanvision 0.3.7's formulas, by Pillow alone."""

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageStat

from diptych.core.record import Record
from diptych.data.candidates import CandidatePool
from diptych.data.filters.sharpness import Clarity, SharpnessConfig, clarity, laplacian
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.source import FromRecords
from tests.data.filters.judged import judged
from tests.data.pictures import encode, pixels


def plain(image: Image.Image) -> Clarity:
    """cleanvision's four scores of an RGB image."""
    values = np.asarray(image).astype(int)
    r, g, b = values[:, :, 0], values[:, :, 1], values[:, :, 2]
    bright = np.sqrt(0.241 * r * r + 0.691 * g * g + 0.068 * b * b) / 255
    ratio = max(image.size) / 64
    small = image
    if ratio > 1:
        small = image.resize((max(int(image.width // ratio), 1), max(int(image.height // ratio), 1)))
    grey = small.convert("L")
    edges = np.sqrt(ImageStat.Stat(grey.filter(ImageFilter.FIND_EDGES)).var[0])
    colours = 1 - np.exp(-0.01 * np.std(grey.histogram()))
    blurry = min(1 - np.exp(-0.01 * edges) + (0 if colours <= 0.18 else colours), 1)
    return Clarity(blurry, np.percentile(bright, 99), 1 - np.percentile(bright, 5), min(0.1 * image.entropy(), 1))


def natural(seed: int, height: int = 90, width: int = 130) -> np.ndarray:
    """Smooth colours with some noise on them."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height))
    return np.clip(np.asarray(coarse) + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)


IMAGES = {
    "": natural(0, 300, 400),
    "dark": natural(1) // 12 + np.uint8(1),
    "light": 255 - natural(2) // 30,
    "blank": np.full((40, 40, 3), 200, np.uint8),
    "low_information": np.kron(np.array([[0, 255], [255, 0]], np.uint8), np.ones((32, 32), np.uint8))[..., None]
    * np.ones(3, np.uint8),
    "blurry": np.asarray(Image.fromarray(natural(3, 300, 400)).filter(ImageFilter.GaussianBlur(30))),
}


def test_scores_are_those_of_the_plain_reading() -> None:
    several = [*IMAGES.values(), pixels(4), natural(5, 1, 1), natural(6, 2, 50), natural(7, 64, 64), natural(8, 65, 40)]
    for image in several:
        assert clarity(image) == pytest.approx(tuple(plain(Image.fromarray(image))), abs=1e-6)


def test_the_laplacian_is_pillows_edges() -> None:
    for height, width in ((30, 40), (3, 3), (2, 9), (1, 1)):
        grey = np.random.default_rng(height).integers(0, 256, (height, width), dtype=np.uint8)
        assert np.array_equal(laplacian(grey), np.asarray(Image.fromarray(grey).filter(ImageFilter.FIND_EDGES)))


@pytest.fixture
def pool(tmp_path) -> CandidatePool:
    made = [
        Record.pair(f"{i}", encode(array, "PNG"), "png", (f"caption {i}",), meta={"split": "train"})
        for i, array in enumerate(IMAGES.values())
    ]
    made.append(
        Record.pair(
            "jpg", encode(natural(9, 600, 800), "JPEG", quality=95), "jpg", ("a photo",), meta={"split": "train"}
        )
    )
    pack(FromRecords(lambda: made), tmp_path / "d", PackConfig(tokenizer="none", jobs=1))
    return CandidatePool(tmp_path / "d")


def test_reasons(pool, tmp_path) -> None:
    assert judged(pool, SharpnessConfig(), tmp_path) == [*IMAGES, ""]
    off = SharpnessConfig(blurry=0, dark=0, light=0, low_information=0)
    assert judged(pool, off, tmp_path) == ["", "", "", "blank", "", "", ""]
    assert judged(pool, SharpnessConfig(at_least=0), tmp_path) == [*IMAGES, ""]


def test_what_cannot_be_decoded_gets_a_reason(pool, tmp_path, monkeypatch) -> None:
    from diptych.data.candidates import Rows

    monkeypatch.setattr(Rows, "image", lambda self, i: b"\xff\xd8\xff no picture")
    assert set(judged(pool, SharpnessConfig(), tmp_path)) == {"undecodable"}


def test_a_scaled_decode_hardly_changes_the_scores() -> None:
    from diptych.data.decode import decode_image

    data = encode(natural(10, 1200, 1600), "JPEG", quality=95)
    whole, scaled = (clarity(decode_image(data, at_least=n).permute(1, 2, 0).numpy()) for n in (0, 256))
    assert scaled == pytest.approx(tuple(whole), abs=0.03)
