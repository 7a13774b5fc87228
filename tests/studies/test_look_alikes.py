"""A picture looks like an earlier one where `decontaminate` would call the one a copy of the other."""

import torch

from diptych.data.decode import encode_jpeg, encode_png, scale_image
from diptych.data.filters.decontaminate import DecontaminateConfig
from diptych.data.near_copies import find_copies, sketch_images
from diptych.studies.look_alikes import like_an_earlier
from tests.evals.leaky_data import scene


def test_it_is_the_rule_of_decontaminate() -> None:
    rng = torch.Generator().manual_seed(0)
    scenes = [scene(i) for i in range(12)]
    noisy = [(s.float() + 25 * torch.randn(s.shape, generator=rng)).clamp(0, 255).byte() for s in scenes[:6]]
    images = [encode_png(s) for s in (*scenes, *noisy)]
    images += [encode_jpeg(scenes[2], 40), encode_png(scale_image(scenes[3], 40, 40, "bilinear"))]
    sketches, broken = sketch_images(images.__getitem__, range(len(images)))
    assert not broken
    rule = DecontaminateConfig()
    near = []
    for i in range(len(images)):
        one, before = (sketch_images(images.__getitem__, places)[0] for places in ([i], range(i)))
        near.append(i > 0 and bool(find_copies(one, before, rule.most_bits, rule.tolerance).near[0]))
    assert like_an_earlier(sketches).tolist() == near
    assert near[-2:] == [True, True]
    assert not any(near[:12])
