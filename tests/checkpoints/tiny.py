"""Tiny models with every number random, so that nothing hides behind zeros and ones, and what parity tests compare."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diptych.checkpoints.convert import assemble, read
from diptych.checkpoints.native import build
from diptych.core.batch import Batch
from diptych.core.image_format import ImageFormat
from diptych.data.tokenize import Tokenizer
from diptych.models.pretrained import Pretrained
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.two_tower import TwoTower, TwoTowerConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.objectives.contrastive import ContrastiveConfig
from diptych.objectives.objective import ObjectiveConfig

TEXTS = [
    "a photo of a red fruit",
    "two dogs run on the beach",
    "a photo of a green apple on a wooden table",
    "The quick brown fox",
]

TOLERANCE = {"rtol": 1e-4, "atol": 2e-5}
"""fp32 sums in another order: our attention is fused and multiplies one matrix where theirs multiplies three (or the
other way round), so outputs of order 1 differ by a few units of 1e-6, and gradients by ten times that."""


def tokenizer(context_length: int = 16) -> Tokenizer:
    """A BPE trained on a few captions, as `diptych pack` makes it."""
    return Tokenizer.train(TEXTS * 3, vocab_size=300, context_length=context_length)


@torch.no_grad()
def randomise(module: nn.Module, seed: int = 0) -> None:
    """Every parameter and statistic random: norms' gains about 1, biases, CLS, positions, scales and counters too."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if name.endswith("num_batches_tracked"):
            tensor.fill_(7)
        elif name.endswith("running_var"):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
        elif name.endswith("logit_scale"):
            tensor.copy_(1.0 + torch.rand(tensor.shape, generator=generator))
        elif tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator)
            gain = tensor.ndim == 1 and name.endswith("weight")
            tensor.copy_(1 + 0.2 * noise if gain else noise * (0.2 if tensor.ndim < 2 else tensor[0].numel() ** -0.5))


def pixels(count: int, resolution: int) -> Tensor:
    """Random uint8 images."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, resolution, resolution), generator=generator, dtype=torch.uint8)


def clip_config(**values: object) -> TwoTowerConfig:
    """A CLIP of two blocks a tower."""
    image = VisionTransformerConfig(width=64, depth=2, heads=1, patch_size=8, activation="quick_gelu")
    text = TextTransformerConfig(width=64, depth=2, heads=1, activation="quick_gelu")
    settings = {"image": image, "text": text, "embed_dim": 24, "context_length": 16}
    return TwoTowerConfig(**{**settings, "image_format": ImageFormat(resolution=32), **values})


def siglip_config(**values: object) -> TwoTowerConfig:
    """A SigLIP of two blocks a tower."""
    block = {"width": 64, "depth": 2, "heads": 2, "activation": "gelu_tanh", "norm_eps": 1e-6}
    image = VisionTransformerConfig(
        **block, patch_size=8, patch_bias=True, pooling="map", norm_pre=False, projection="none"
    )
    text = TextTransformerConfig(**block, attention="bidirectional", pooling="last", projection="linear_bias")
    squash = ImageFormat(resolution=32, resize="squash", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    settings = {"image": image, "text": text, "embed_dim": 64, "context_length": 16, "init_logit_bias": -10.0}
    return TwoTowerConfig(**{**settings, "image_format": squash, **values})


def trained(config: TwoTowerConfig, words: Tokenizer | None = None) -> Pretrained:
    """A model as a run of ours would leave it: our tokenizer, every weight random."""
    words = words or tokenizer(config.context_length)
    model = build(config, words.vocab_size)
    randomise(model, seed=2)
    return Pretrained(model, words)


def ours(format: str, path: Path, words: Tokenizer | None = None) -> TwoTower:
    """The model that a foreign checkpoint becomes."""
    found = read(format, path)
    words = words or found.tokenizer
    assert words is not None
    model = assemble(found, words).model
    assert isinstance(model, TwoTower)
    return model


def our_logits(model: TwoTower, images: Tensor, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Unit vectors of images and texts, and the scaled logits."""
    i, t = model.encode_image(images), model.encode_text(tokens, lengths)
    logits = model.log_logit_scale.exp() * i @ t.T
    return i, t, logits if model.logit_bias is None else logits + model.logit_bias


def check_parity(
    model: TwoTower,
    texts: tuple[Tensor, Tensor],
    images: Tensor,
    theirs: tuple[Tensor, Tensor, Tensor],
    their_loss: Tensor,
    gradients: dict[str, tuple[Tensor, Callable[[Tensor], Tensor]]],
    objective: ObjectiveConfig | None = None,
) -> None:
    """Features of both towers, logits, loss (of our objective and their class) and gradients equal theirs.

    `texts`: tokens and lengths. `theirs`: unit vectors of images and texts, and logits (images by texts). `gradients`:
    our parameter's name to their parameter and how its gradient must be reshaped to ours.
    """
    model.eval()
    found = our_logits(model, images, *texts)
    for mine, yours in zip(found, theirs, strict=True):
        torch.testing.assert_close(mine, yours, **TOLERANCE)
    built: Any = (objective or ContrastiveConfig(duplicates="ignore")).build(model)
    loss = built.loss({"image": found[0], "text": found[1]}, Batch()).total
    torch.testing.assert_close(loss, their_loss.reshape(()), **TOLERANCE)
    loss.backward()
    their_loss.backward()
    parameters = dict(model.named_parameters())
    for name, (parameter, reshape) in gradients.items():
        mine, yours = parameters[name].grad, parameter.grad
        assert mine is not None
        assert yours is not None
        assert mine.abs().max() > 1e-6, f"{name} must have a gradient to compare"
        torch.testing.assert_close(mine, reshape(yours), rtol=1e-3, atol=1e-5 * float(mine.abs().max()) + 1e-6)


def assert_equal_states(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    """Equal names, types, shapes and bytes."""
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype, name
        assert a[name].shape == b[name].shape, name
        assert torch.equal(a[name], b[name]), name
