"""A small dataset of three shards, and two models to ask about it: one that embeds, one that writes."""

from pathlib import Path

import torch

from diptych.checkpoints.native import save_pretrained
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
