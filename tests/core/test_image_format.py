import pytest

from diptych.core.config import from_json, to_json
from diptych.core.errors import ConfigError
from diptych.core.image_format import ImageFormat


def test_it_survives_the_disk_and_checks_its_values():
    assert from_json(to_json(ImageFormat(resolution=64, resize="pad"))) == ImageFormat(resolution=64, resize="pad")
    with pytest.raises(ConfigError, match="resize must be"):
        ImageFormat(resize="stretch")


@pytest.mark.parametrize("wrong", [{"resolution": 0}, {"resolution": -5}, {"std": (0.5, 0.0, 0.5)}])
def test_formats_without_pixels_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"ImageFormat.{next(iter(wrong))} must be"):
        ImageFormat(**wrong)
