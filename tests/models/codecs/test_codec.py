"""What all codecs share: pixels brought to the codec's side."""

import pytest
import torch

from diptych.core.image_format import ImageFormat
from diptych.models.codecs.codec import CodecConfig, ImageDecoder, as_pixels


class MeanConfig(CodecConfig):
    """Averages of 4 x 4 cells, a codec that loses what is inside them."""

    image_format: ImageFormat = ImageFormat(resolution=16)

    def build(self, vocab_size: int = 0) -> "Mean":
        return Mean(self, vocab_size)


class Mean(ImageDecoder):
    grid, latent_channels = (4, 4), 3

    def encode(self, images):
        return torch.nn.functional.avg_pool2d(self.at_side(images), 4)

    def decode(self, latents):
        return latents.repeat_interleave(4, 2).repeat_interleave(4, 3)


def test_there_and_back_at_its_own_side():
    codec = MeanConfig().build()
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    large = images.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.equal(codec.reconstruct(large), large)
    assert codec.reconstruct(large.repeat_interleave(2, 2).repeat_interleave(2, 3)).shape == (2, 3, 16, 16)
    assert codec.at_side(images).min() >= 0
    assert codec.at_side(images).max() <= 1


def test_pixels_are_held_in_range():
    assert as_pixels(torch.tensor([-0.1, 0.0, 0.5, 1.0, 1.2])).tolist() == [0, 0, 128, 255, 255]
    assert as_pixels(torch.tensor([1.0])).dtype == torch.uint8
    assert MeanConfig().build().config.image_format.resolution == pytest.approx(16)
