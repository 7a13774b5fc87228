"""What every tower of the folder promises."""

from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from diptych.core.config import from_json, to_json
from diptych.models.tower import ImageTower, ImageTowerConfig, TextTower, TextTowerConfig
from tests.models.towers import CONTEXT, EMBED, RESOLUTION, VOCAB, small, stir, texts, towers_in_the_folder

IMAGE = towers_in_the_folder(ImageTowerConfig)
TEXT = towers_in_the_folder(TextTowerConfig)


def name(cls: type) -> str:
    return cls.__name__


def image_tower(cls: type[ImageTowerConfig]) -> ImageTower:
    tower = small(cls).build(RESOLUTION, EMBED)
    stir(tower)
    return tower.eval()


def text_tower(cls: type[TextTowerConfig]) -> TextTower:
    tower = small(cls).build(VOCAB, CONTEXT, EMBED)
    stir(tower)
    return tower.eval()


def images(count: int = 3, side: int = RESOLUTION) -> Tensor:
    return torch.randn(count, 3, side, side)


def check_promises(tower: nn.Module, rebuilt: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Half precision, save and load, gradients, names of the undecayed: alike for both modalities."""
    plain = tower(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        half = tower(*inputs)
    assert half.isfinite().all()
    assert torch.cosine_similarity(half.float(), plain, dim=-1).min() > 0.99

    rebuilt.load_state_dict(load(save({k: v.contiguous() for k, v in tower.state_dict().items()})))
    assert torch.equal(rebuilt.eval()(*inputs), plain)

    tower.train()
    (tower(*inputs) * torch.randn_like(plain)).sum().backward()
    silent = [n for n, p in tower.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not silent, f"no gradient reaches {silent}"

    names = dict(tower.named_parameters())
    free = tower.decay_free()  # type: ignore[operator]
    assert free <= set(names)
    assert all(names[n].ndim >= 2 for n in free), "parameters of fewer dimensions are never decayed anyway"


@pytest.mark.parametrize("cls", IMAGE, ids=name)
def test_image_towers(cls: type[ImageTowerConfig]) -> None:
    tower, x = image_tower(cls), images()
    out, tokens = tower(x), tower.tokens(x)
    assert out.shape == (3, EMBED)
    assert tokens.shape[0] == 3
    assert tokens.shape[2] == tower.width
    torch.testing.assert_close(out[:1], tower(x[:1]), atol=1e-4, rtol=1e-4)  # batch invariance; kernels may differ
    assert tower(images(2, RESOLUTION + 32)).shape == (2, EMBED)  # progressive resizing
    check_promises(tower, image_tower(cls), (x,))


@pytest.mark.parametrize("cls", TEXT, ids=name)
def test_text_towers(cls: type[TextTowerConfig]) -> None:
    tower, (tokens, lengths) = text_tower(cls), texts()
    out = tower(tokens, lengths)
    assert out.shape == (4, EMBED)
    assert tower.tokens(tokens, lengths).shape == (*tokens.shape, tower.width)
    longer = torch.cat([tokens, torch.zeros(4, 2, dtype=torch.int64)], 1)
    junk = torch.arange(longer.shape[1]) >= lengths[:, None]
    for filler in (0, 7):  # neither the ids nor the number of padding columns can be told from the output
        padded = torch.where(junk, filler, longer)
        torch.testing.assert_close(tower(padded, lengths), out, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(tower(tokens[:1], lengths[:1]), out[:1], atol=1e-6, rtol=1e-5)
    check_promises(tower, text_tower(cls), (tokens, lengths))


@pytest.mark.parametrize("cls", IMAGE + TEXT, ids=name)
def test_settings_survive_json_and_seed_decides_weights(cls: type[Any]) -> None:
    config = small(cls)
    assert from_json(to_json(config)) == config
    where = (RESOLUTION, EMBED) if issubclass(cls, ImageTowerConfig) else (VOCAB, CONTEXT, EMBED)
    state = torch.get_rng_state()
    first = config.build(*where).state_dict()
    torch.set_rng_state(state)
    again = config.build(*where).state_dict()
    assert all(torch.equal(v, again[k]) for k, v in first.items())
    assert all(not torch.isnan(v).any() for v in first.values())


def test_the_folder_is_read() -> None:
    assert {"VisionTransformerConfig", "ModifiedResNetConfig"} <= {c.__name__ for c in IMAGE}
    assert "TextTransformerConfig" in {c.__name__ for c in TEXT}
