import pytest
import torch

from diptych.core.errors import ConfigError
from diptych.models.convnet import ConvNetConfig
from diptych.models.image_reading import ImageReading, ImageReadingConfig
from diptych.models.vision_transformer import VisionTransformer, VisionTransformerConfig
from tests.models.towers import stir


def tower() -> VisionTransformer:
    found = VisionTransformerConfig(width=16, depth=2, heads=2, patch_size=8).build(32, 8)
    stir(found)
    return found.eval()


def test_what_is_read():
    vit, images = tower(), torch.randn(2, 3, 32, 32)
    last = ImageReading(ImageReadingConfig(), vit, 32)
    assert last.given == (17, 16, 0)  # with CLS they are no grid
    assert torch.equal(last(vit, images), vit.tokens(images))
    bare = ImageReading(ImageReadingConfig(norm=False), vit, 32)(vit, images)
    torch.testing.assert_close(vit.norm_post(bare), vit.tokens(images))
    earlier = ImageReading(ImageReadingConfig(layer=-2, cls=False), vit, 32)
    assert earlier.given == (16, 16, 4)
    torch.testing.assert_close(earlier(vit, images), vit.tokens(images, layer=-2)[:, 1:])
    pooled = ImageReading(ImageReadingConfig(readout="pooled"), vit, 32)
    assert pooled.given == (1, 8, 1)
    torch.testing.assert_close(pooled(vit, images)[:, 0], vit(images))


@pytest.mark.parametrize(
    "config,unused",
    [
        (ImageReadingConfig(readout="pooled"), set()),
        (ImageReadingConfig(), {"projection"}),
        (ImageReadingConfig(norm=False), {"projection", "norm_post"}),
        (ImageReadingConfig(layer=-2), {"projection", "norm_post", "blocks.1"}),
    ],
)
def test_what_nothing_reads_does_not_train(config, unused):
    vit = tower()
    reading = ImageReading(config, vit, 32)
    frozen = {n for n, p in vit.named_parameters() if not p.requires_grad}
    assert frozen == reading.unused
    assert {".".join(n.split(".")[: 2 if n.startswith("blocks") else 1]) for n in frozen} == unused


def test_a_tower_without_blocks_has_no_layers_to_choose_from():
    convnet = ConvNetConfig(widths=(8, 16), depths=(0, 1)).build(32, 8)
    assert ImageReading(ImageReadingConfig(), convnet, 32).given == (64, 16, 8)
    for config in (ImageReadingConfig(layer=-2), ImageReadingConfig(norm=False)):
        with pytest.raises(ConfigError, match=r"reading\.layer must be -1 and reading\.norm true for a ConvNet"):
            ImageReading(config, convnet, 32)
