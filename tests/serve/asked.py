"""A small dataset of three shards, and two models to ask about it: one that embeds, one that writes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from diptych.checkpoints.native import save_pretrained
from diptych.core.errors import DataError
from diptych.data.tokenize import Tokenizer
from tests.data.curation_pools import packed_pool
from tests.models.writers import small_prefix_lm
from tests.train.locked import small

CAPTIONS = [[f"caption {i}", f"another {i}"] for i in range(7)]


def asked(folder: Path) -> tuple[Path, Path, Path]:
    """(dataset, one that embeds, one that writes)."""
    data = packed_pool(folder / "d", CAPTIONS, per_shard=3)
    tokenizer = Tokenizer.train([c for of in CAPTIONS for c in of], vocab_size=280, context_length=16)
    torch.manual_seed(0)
    for name, config in (("embeds", small()), ("writes", small_prefix_lm())):
        model = config.build(tokenizer.vocab_size)
        save_pretrained(folder / name, model, tokenizer.with_context_length(config.context_length))
    return data, folder / "embeds", folder / "writes"


def stopped_and_gone_on(module: Any, writer: str, begin: Callable[[], Path]) -> Path:
    """Carry `begin` out, which dies at the second shard that `writer` (a function of `module`) is to write, and again;
    the folder, after a check that the first shard was not written anew."""
    real, done = getattr(module, writer), []

    def dies(*given: Any) -> None:
        if len(done) == 1:
            raise DataError("the disk must have room; it is full.")
        done.append(real(*given))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, writer, dies)
        with pytest.raises(DataError):
            begin()
    first = done[0].stat().st_mtime_ns
    folder = begin()
    assert done[0].stat().st_mtime_ns == first
    return folder
