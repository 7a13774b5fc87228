"""What every model that fills in promises (`models/capabilities.py: FillsIn`): `check` it with a small stirred one."""

from typing import Any

import torch
from torch import Tensor

from diptych.core.batch import Batch
from diptych.models.capabilities import capabilities_of


def hidden(count: int, places: int, seed: int = 0) -> Tensor:
    """Half of each row, and always the first two."""
    g = torch.Generator().manual_seed(seed)
    masked = torch.rand(count, places, generator=g) < 0.5
    masked[:, :2] = True
    return masked


def check(model: Any, batch: Batch, local_codes: bool = True) -> None:
    """Shapes; nothing where nothing is hidden; both sides with, without and beside another; and no leak: what is hidden
    in one place changes no error in another (`local_codes` False: an image's codes depend on all of its pixels, so that
    this cannot be seen from outside)."""
    model.eval()
    assert "fill_in" in capabilities_of(model)
    assert model.fill_unit
    images, tokens, lengths = batch.images, batch.tokens, batch.lengths
    assert images is not None and tokens is not None and lengths is not None  # noqa: PT018
    rows, columns = model.fill_grid()
    b, cells = len(images), rows * columns
    masked = hidden(b, cells)
    place = torch.arange(tokens.shape[1])
    words = hidden(b, tokens.shape[1], 1) & (place > 0) & (place < lengths[:, None] - 1)
    seen = model.fill_image(images, masked, tokens, lengths)
    read = model.fill_text(tokens, lengths, words, images)
    for errors, where in ((seen, masked), (read, words)):
        assert errors.shape == where.shape
        assert errors.isfinite().all()
        assert (errors[~where] == 0).all()
        assert (errors[where] > 0).all()
        assert not errors.requires_grad
    assert model.fill_image(images, masked, None, None).shape == masked.shape
    assert model.fill_text(tokens, lengths, words, None).shape == words.shape
    assert not torch.allclose(model.fill_image(images, masked, tokens.roll(1, 0), lengths.roll(1, 0)), seen)
    assert not torch.allclose(model.fill_text(tokens, lengths, words, images.roll(1, 0)), read)
    one = model.fill_image(images[:1], masked[:1], tokens[:1], lengths[:1])  # whatever batch is around
    torch.testing.assert_close(one, seen[:1], atol=1e-5, rtol=1e-4)
    _check_no_leak(model, batch, masked, words, local_codes)


def _check_no_leak(model: Any, batch: Batch, masked: Tensor, words: Tensor, local_codes: bool) -> None:
    images, tokens, lengths = batch.images, batch.tokens, batch.lengths
    assert images is not None and tokens is not None and lengths is not None  # noqa: PT018
    rows, columns = model.fill_grid()
    high, wide = images.shape[-2] // rows, images.shape[-1] // columns
    other = images.clone()
    other[:, :, :high, :wide] = 255 - other[:, :, :high, :wide]  # the first cell, which is hidden
    if local_codes:
        before, after = (model.fill_image(x, masked, tokens, lengths) for x in (images, other))
        torch.testing.assert_close(after[:, 1:], before[:, 1:], atol=1e-6, rtol=1e-5)
    first = words.int().argmax(1, keepdim=True)
    changed = tokens.scatter(1, first, (tokens.gather(1, first) + 1) % model.vocab_size)
    changed = torch.where(words, changed, tokens)
    before, after = (model.fill_text(x, lengths, words, images) for x in (tokens, changed))
    elsewhere = torch.arange(tokens.shape[1]) != first
    torch.testing.assert_close(after[elsewhere], before[elsewhere], atol=1e-6, rtol=1e-5)
