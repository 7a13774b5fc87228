import base64

import pytest
import torch

from diptych.core.errors import EvalError
from diptych.data.decode import decode_image
from diptych.evals.painted import (
    PaintedConfig,
    choose_captioned,
    encoded,
    of_side,
    paint_captions,
    whole_pictures,
)
from tests.evals import fakes
from tests.evals.fake_painter import painter


class _Config(PaintedConfig):
    pass


def test_every_readable_record_with_a_caption_is_painted_once():
    split = fakes.pairs(6)
    split.images[2] = b"broken"
    split._captions[4] = ()
    model = painter({f"thing {i} view 0": decode_image(fakes.picture(i)) for i in range(6)})
    reader = whole_pictures(model, split, 2)
    found = paint_captions(model, reader, choose_captioned(split, 0), _Config(painting={"seed": 3}, batch_size=2), "x")
    assert found.places == [0, 1, 3, 5]
    assert found.captions[2] == "thing 3 view 0"
    assert torch.equal(found.painted, found.real)
    assert list(reader.broken) == [2]
    assert [how.first for how in model.model.asked] == [0, 2]
    with pytest.raises(EvalError, match="x must be given at least 2 readable records with different captions; got 1"):
        paint_captions(model, reader, [0], _Config(), "x")


def test_pictures_of_another_side_are_scaled():
    images = torch.full((2, 3, 16, 16), 90, dtype=torch.uint8)
    assert of_side(images, 16) is images
    assert torch.equal(of_side(images, 8), images[:, :, :8, :8])
    assert decode_image(base64.b64decode(encoded(images[0]))).shape == (3, 128, 128)
