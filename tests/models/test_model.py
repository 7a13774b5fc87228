import torch

from diptych.core.image_format import ImageFormat
from diptych.models import sizes


def test_pixels_are_normalised_as_the_format_says() -> None:
    config = sizes.tiny().replace(image_format=ImageFormat(resolution=32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)))
    model = config.build(10)
    pixels = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    out = model.normalise(pixels)
    for c, (mean, std) in enumerate(zip((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), strict=True)):
        torch.testing.assert_close(out[:, c], (pixels[:, c].float() / 255 - mean) / std)
    torch.testing.assert_close(model.normalise(pixels.float()), out)  # 0..255, as augmentation leaves them
    assert not {"pixel_mean", "pixel_std"} & set(model.state_dict())  # they are settings, not weights
