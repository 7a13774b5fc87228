import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.core.config import from_json, override, to_json
from diptych.core.errors import ConfigError
from diptych.core.image_format import ImageFormat
from diptych.models.capabilities import capabilities_of
from diptych.models.modified_resnet import ModifiedResNetConfig
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.two_tower import TwoTower, TwoTowerConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from tests.models.towers import CONTEXT, EMBED, VOCAB, small, stir, texts
from tests.reference import two_tower as reference


def model(**changes: Any) -> TwoTower:
    config = TwoTowerConfig(
        image=small(VisionTransformerConfig),
        text=small(TextTransformerConfig),
        embed_dim=EMBED,
        context_length=CONTEXT,
        image_format=ImageFormat(resolution=32),
    ).replace(**changes)
    made = config.build(VOCAB)
    stir(made)
    return made.eval()


def pixels(count: int = 3, side: int = 32) -> Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)


def test_it_equals_the_plain_twin_in_value_and_gradient() -> None:
    made, x, (tokens, lengths) = model(), pixels(4), texts()
    weights = dict(made.named_parameters())
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (made.config.image_format.mean, made.config.image_format.std))
    whole = F.pad(tokens, (0, CONTEXT - tokens.shape[1]))
    theirs = reference.image((x / 255 - mean) / std, weights, 2, 2, 8) @ reference.text(whole, lengths, weights, 2, 2).T
    ours = made.encode_image(x) @ made.encode_text(tokens, lengths).T
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(made.score(x, tokens, lengths), ours)
    toward = torch.randn_like(ours)
    inputs = [p for n, p in weights.items() if "logit" not in n]
    for a, b in zip(
        torch.autograd.grad((ours * toward).sum(), inputs),
        torch.autograd.grad((theirs * toward).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)


def test_embeddings_are_unit_fp32_and_without_gradient() -> None:
    made, (tokens, lengths) = model(), texts()
    with torch.autocast("cpu", torch.bfloat16):
        trained = made.encode_image(pixels()), made.encode_text(tokens, lengths)
        used = made.embed_image(pixels()), made.embed_text(tokens, lengths)
        score = made.score(pixels(), tokens, lengths)
    assert score.dtype == torch.float32
    for out in trained + used:
        assert out.dtype == torch.float32
        torch.testing.assert_close(out.norm(dim=-1), torch.ones(len(out)))
    assert all(out.requires_grad for out in trained)
    assert not any(out.requires_grad for out in used)
    assert {"embed_image", "embed_text", "score"} <= set(capabilities_of(made))


def test_float_pixels_are_taken_as_0_to_255() -> None:
    made, x = model(), pixels()
    torch.testing.assert_close(made.encode_image(x.float()), made.encode_image(x))


def test_other_sizes_of_images_are_taken() -> None:
    assert model().encode_image(pixels(side=48)).shape == (3, EMBED)
    resnet = model(image=small(ModifiedResNetConfig))
    assert resnet.encode_image(pixels(side=64)).shape == (3, EMBED)


def test_the_scale_is_held_after_the_step() -> None:
    made = model(init_logit_scale=math.log(100), init_logit_bias=-10.0)
    for value, held in ((5.0, math.log(100)), (-1.0, 0.0), (2.0, 2.0)):
        made.log_logit_scale.data.fill_(value)
        made.after_step()
        assert made.log_logit_scale.item() == pytest.approx(held)
    assert made.log_logit_scale.requires_grad


def test_first_values_of_scale_and_bias() -> None:
    plain = TwoTowerConfig(image=small(VisionTransformerConfig), text=small(TextTransformerConfig)).build(VOCAB)
    assert plain.log_logit_scale.item() == pytest.approx(2.6593, abs=1e-4)
    assert plain.logit_bias is None
    assert "logit_bias" not in plain.state_dict()
    config = plain.config.replace(init_logit_scale=math.log(10), init_logit_bias=-10.0)
    sigmoid = config.build(VOCAB)
    assert sigmoid.log_logit_scale.exp().item() == pytest.approx(10)
    assert sigmoid.logit_bias is not None
    assert sigmoid.logit_bias.item() == -10


def test_a_scale_given_in_place_of_its_logarithm_is_refused() -> None:
    with pytest.raises(ConfigError, match="init_logit_scale must be a logarithm of at most ln max_logit_scale"):
        TwoTowerConfig(init_logit_scale=14.3)


def test_undecayed_names_exist() -> None:
    made = model()
    assert made.decay_free() == {"image_tower.position_embed", "text_tower.position_embed"}
    assert made.decay_free() <= set(dict(made.named_parameters()))


def test_settings_survive_json_and_take_overrides() -> None:
    config = model().config
    assert from_json(to_json(config)) == config
    swapped = override(config, ["image=modified_resnet", "text.attention=bidirectional", "text.pooling=mean"])
    assert isinstance(swapped, TwoTowerConfig)
    assert isinstance(swapped.image, ModifiedResNetConfig)
    with pytest.raises(ConfigError, match="Did you mean 'patch_size'"):
        override(config, ["image.patchsize=4"])


COMPILED = """
import sys, torch
torch.set_num_threads(1)
from tests.models.test_two_tower import model, pixels
from tests.models.towers import small, texts
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.vision_transformer import VisionTransformerConfig

image = small(VisionTransformerConfig, pooling=sys.argv[1], patch_dropout=0.5, drop_path=0.1)
text = small(TextTransformerConfig, attention="bidirectional", pooling="mean")
made, (tokens, lengths) = model(image=image, text=text).train(), texts()
both = lambda x, t, n: made.encode_image(x) @ made.encode_text(t, n).T
torch.compile(both, backend="aot_eager", fullgraph=True)(pixels(), tokens, lengths).sum().backward()
"""


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["cls", "map"])
def test_it_compiles_as_one_graph(pooling: str) -> None:
    # in a process of its own: the hook that executes annotations in the tests is itself not traceable
    subprocess.run([sys.executable, "-c", COMPILED, pooling], check=True, cwd=Path(__file__).parents[2])
