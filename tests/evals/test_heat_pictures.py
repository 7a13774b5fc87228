import base64

import numpy as np
import torch

from diptych.data.decode import decode_image
from diptych.evals.heat_pictures import RAMP, SIDE, WEIGHT, blend, encoded


def test_heat_is_coloured_and_boxes_are_outlined():
    image = torch.full((3, 40, 80), 100, dtype=torch.uint8)
    heat = np.zeros((40, 80), np.float32)
    heat[:, 40:] = 1
    seen = blend(image, heat, np.array([[10.0, 10.0, 30.0, 30.0]]))
    assert seen.shape == (3, SIDE // 2, SIDE)
    hot = torch.lerp(torch.full((3,), 100.0), torch.tensor(RAMP[-1], dtype=torch.float32), WEIGHT)
    cold = torch.lerp(torch.full((3,), 100.0), torch.tensor(RAMP[0], dtype=torch.float32), 0.25)
    assert seen[:, 40, 150].tolist() == hot.round().tolist()
    assert seen[:, 40, 5].tolist() == cold.round().tolist()
    assert (seen[:, 20:60, 20] == 255).all()
    assert (seen[:, 20, 20:60] == 255).all()
    assert (seen[:, 59, 59] == 255).all()
    assert not (seen[:, 40, 40] == 255).all()  # only the rim
    assert (image == 100).all()


def test_boxes_that_reach_over_the_edge_are_drawn_at_it():
    seen = blend(torch.zeros(3, 8, 8, dtype=torch.uint8), np.zeros((8, 8), np.float32), np.array([[-5.0, -5, 99, 99]]))
    assert (seen[:, [0, -1]] == 255).all()
    assert decode_image(base64.b64decode(encoded(seen))).shape == seen.shape
