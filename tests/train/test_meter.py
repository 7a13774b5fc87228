from dataclasses import replace

import pytest
import torch

from diptych.core.batch import Batch
from diptych.core.image_format import ImageFormat
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.two_tower import TwoTowerConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.objectives.contrastive import ContrastiveConfig
from diptych.objectives.objective import Objective
from diptych.train import meter as module
from diptych.train.meter import Meter, without_content

WIDTH = 32


def build() -> Objective:
    config = TwoTowerConfig(
        image_format=ImageFormat(resolution=16),
        context_length=8,
        embed_dim=WIDTH,
        image=VisionTransformerConfig(patch_size=8, width=WIDTH, depth=2, heads=2, pooling="mean"),
        text=TextTransformerConfig(width=WIDTH, depth=2, heads=2, pooling="mean"),
    )
    return ContrastiveConfig().build(config.build(50)).train()


def batch(pairs: int, length: int) -> Batch:
    return Batch(
        images=torch.zeros(pairs, 3, 16, 16, dtype=torch.uint8),
        tokens=torch.ones(pairs, length, dtype=torch.int64),
        lengths=torch.full((pairs,), length),
        sample_ids=torch.arange(pairs),
    )


def meter() -> Meter:
    return Meter(build, "vit", 8, torch.device("cpu"), "float32")


def test_a_real_token_costs_six_operations_a_weight_and_padding_none():
    one = meter()
    short, long = one.flops(batch(4, 2)), one.flops(batch(4, 8))
    block = 12 * WIDTH * WIDTH
    assert (long - short) / 24 == pytest.approx(6 * 2 * block, rel=0.2)  # attention itself comes on top
    padded = replace(batch(4, 8), lengths=torch.full((4,), 2))
    assert one.flops(padded) == short
    assert one.flops(batch(8, 8)) == pytest.approx(2 * long)
    assert one.flops(batch(1, 8)) == 0.0


def test_the_objective_is_built_once_and_without_memory():
    built = []

    def once() -> Objective:
        built.append(build())
        return built[-1]

    one = Meter(once, "once", 8, torch.device("cpu"), "float32")
    one.flops(batch(4, 8))
    one.flops(batch(4, 3))
    Meter(once, "once", 8, torch.device("cpu"), "float32").flops(batch(6, 4))
    assert len(built) == 1
    one.flops(replace(batch(4, 3), images=torch.zeros(4, 3, 8, 8, dtype=torch.uint8)))  # progressive resizing
    assert len(built) == 2
    assert all(p.is_meta and p.grad is None for p in built[0].parameters())


def test_utilisation_is_the_share_of_the_matrix_rate(monkeypatch):
    monkeypatch.setattr(module, "matrix_tflops", lambda *_: 2.0)
    assert meter().utilisation(1e12, 1.0) == {"mfu": 0.5}
    assert meter().utilisation(0.0, 1.0) == {}


def test_a_batch_without_content_keeps_its_kind():
    made = without_content(replace(batch(4, 8), cached={"image": torch.zeros(4, 6)}), 2, 5)
    assert made.images.is_meta
    assert made.images.shape == (2, 3, 16, 16)
    assert made.tokens.shape == (2, 5)
    assert made.lengths.tolist() == [5, 5]
    assert made.cached["image"].shape == (2, 6)


def test_a_model_that_cannot_be_counted_is_said_and_not_counted(capsys):
    def broken() -> Objective:
        raise RuntimeError("no meta kernel")

    one = Meter(broken, "broken", 8, torch.device("cpu"), "float32")
    assert one.flops(batch(4, 8)) == 0.0
    assert one.flops(batch(4, 8)) == 0.0
    assert capsys.readouterr().err.count("cannot be counted (no meta kernel)") == 1
