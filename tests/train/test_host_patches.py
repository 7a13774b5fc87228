"""Patches cut by the loader: the vectors and gradients of dropping them in the tower, in every pass and restart."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.image_format import ImageFormat
from diptych.data.loader import Loader, LoaderConfig
from diptych.data.patches import PatchShare
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.two_tower import TwoTower, TwoTowerConfig
from diptych.models.vision_transformer import VisionTransformer, VisionTransformerConfig
from diptych.nn import embed
from diptych.objectives.contrastive import Contrastive, ContrastiveConfig
from diptych.train.accumulate import Accumulator
from diptych.train.host_patches import host_patches
from tests.data import tiny_split

SIDE, PATCH, DROPPED = 16, 4, 0.6


def model(pooling: str = "cls", dropped: float = DROPPED) -> TwoTower:
    torch.manual_seed(0)
    image = VisionTransformerConfig(
        width=16,
        depth=2,
        heads=2,
        patch_size=PATCH,
        pooling=pooling,  # type: ignore[arg-type]
        patch_bias=True,
        patch_dropout=dropped,
    )
    text = TextTransformerConfig(width=16, depth=1, heads=2)
    config = TwoTowerConfig(
        image_format=ImageFormat(resolution=SIDE), context_length=16, image=image, text=text, embed_dim=8
    )
    return config.build(300).train()


def loader(folder: Path, patches: PatchShare | None) -> Loader:
    split = tiny_split.opened(folder, 20, sizes=((20, 20),))
    config = LoaderConfig(workers=0, cache="none")
    made = Loader(split, tiny_split.tokenizer(), ImageFormat(resolution=SIDE), config, 3, 8)
    made.keep_patches(patches)
    return made


def gradients(network: TwoTower) -> dict[str, Tensor]:
    found = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    return found


@pytest.mark.parametrize("pooling", ["cls", "mean", "map"])
@pytest.mark.parametrize("side", [SIDE, 24])
def test_equal_to_choosing_after_embedding_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pooling: str, side: int
) -> None:
    network = model(pooling)
    whole = next(loader(tmp_path / "a", None).batches(0, 8, side))
    part = next(loader(tmp_path / "b", PatchShare(PATCH, DROPPED)).batches(0, 8, side))
    assert whole.images is not None
    assert part.patches is not None
    assert part.patch_index is not None

    def chosen(x: Tensor, rate: float, prefix: int, training: bool) -> Tensor:
        index = part.patch_index + prefix  # type: ignore[operator]
        return torch.cat([x[:, :prefix], x.gather(1, index[:, :, None].expand(-1, -1, x.shape[2]))], 1)

    monkeypatch.setattr("diptych.models.vision_transformer.patch_dropout", chosen)
    direction = torch.randn(8, 8)
    plain = network.encode_image(whole.images)
    (plain * direction).sum().backward()
    expected = gradients(network)
    monkeypatch.setattr("diptych.models.vision_transformer.patch_dropout", None)  # not called
    fast = network.encode_image(part.patches, part.patch_index, part.patch_grid)
    (fast * direction).sum().backward()
    assert torch.allclose(fast, plain, atol=2e-6), "the same sums, in products of another number of rows"
    found = gradients(network)
    assert found.keys() == expected.keys()
    for name, grad in expected.items():
        assert torch.allclose(found[name], grad, atol=1e-5, rtol=1e-4), name


def test_pieces_and_restarts_see_the_same_patches(tmp_path: Path) -> None:
    batches = list(loader(tmp_path / "a", PatchShare(PATCH, DROPPED)).batches(0, 16))
    again = list(loader(tmp_path / "b", PatchShare(PATCH, DROPPED)).batches(8, 16))
    assert batches[1].patches is not None
    assert again[0].patches is not None
    assert torch.equal(batches[1].patches, again[0].patches)
    results = []
    for micro in (0, 3):
        objective = Contrastive(ContrastiveConfig(), model())
        gradient = Accumulator(objective, micro)(batches[1])
        results.append((gradient.losses.total, gradients(objective.model)))  # type: ignore[arg-type]
    (whole, expected), (pieces, found) = results
    assert torch.allclose(whole, pieces, atol=1e-6)
    for name, grad in expected.items():
        assert torch.allclose(found[name], grad, atol=1e-5, rtol=1e-4), name


def test_only_where_the_tower_would_drop_them() -> None:
    network = model()
    assert host_patches(Contrastive(ContrastiveConfig(), network)) == PatchShare(PATCH, DROPPED)
    assert isinstance(network.image_tower, VisionTransformer)
    network.image_tower.eval()
    assert host_patches(Contrastive(ContrastiveConfig(), network)) is None, "a frozen tower looks at all of them"
    assert host_patches(Contrastive(ContrastiveConfig(), model(dropped=0.0))) is None
    objective = Contrastive(ContrastiveConfig(), model())
    type.__setattr__(type(objective), "takes_patches", False)
    try:
        assert host_patches(objective) is None
    finally:
        del type(objective).takes_patches


def test_normalised_patches_are_normalised_pixels() -> None:
    network = model()
    images = torch.stack([tiny_split.picture(i, SIDE, SIDE) for i in range(2)])
    flat = network.normalise(images).unflatten(3, (4, 4)).unflatten(2, (4, 4)).permute(0, 2, 4, 1, 3, 5).flatten(3)
    raw = images.unflatten(3, (4, 4)).unflatten(2, (4, 4)).permute(0, 2, 4, 1, 3, 5).flatten(3)
    assert torch.equal(network.normalise(raw.flatten(1, 2)), flat.flatten(1, 2))


def test_a_batch_moves_with_its_patches() -> None:
    patches, index = torch.zeros(3, 2, 12, dtype=torch.uint8), torch.zeros(3, 2, dtype=torch.int64)
    batch = Batch(patches=patches, patch_index=index, patch_grid=(2, 2), sample_ids=torch.arange(3))
    moved = replace(batch, cached={"text": torch.ones(3, 4)}).to("meta")
    assert moved.patches is not None
    assert moved.cached is not None
    assert moved.patches.device.type == moved.cached["text"].device.type == "meta"
    assert moved.patch_grid == (2, 2)
    assert embed.patch_dropout(torch.zeros(1, 10, 2), DROPPED, 0, True).shape[1] == 4
