"""Batches of no content with the shapes that a run will have: for measuring memory before the first step."""

from collections.abc import Callable

import torch
from jaxtyping import Int64
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.image_format import ImageFormat
from diptych.data.captions import longest_rows
from diptych.data.dataset import Split
from diptych.data.tokenize import Tokenizer

SAMPLED = 512
"""Records whose captions are read."""

Batches = Callable[[int], Batch]
"""Makes a batch of so many pairs, on its device."""


def caption_lengths(split: Split, tokenizer: Tokenizer) -> Int64[Tensor, " n"]:
    """Lengths in tokens of the longest rows of some records that lie evenly over the split, the shortest first."""
    count = min(len(split), SAMPLED)
    lengths = longest_rows(split, tokenizer, [i * len(split) // count for i in range(count)])
    lengths = lengths[lengths > 0]
    return lengths.sort().values if len(lengths) else torch.tensor([tokenizer.context_length])


def batches_like(
    form: ImageFormat, lengths: Int64[Tensor, " n"], device: torch.device, cached: dict[str, int] | None = None
) -> Batches:
    """Makes batches of grey images and of captions of the longer half of `lengths` (sorted), the longest among them.

    So neither packed texts (their sum counts) nor padded ones (the longest counts) come out too small. `cached`: width
    of the vectors that stand for a modality ("image", "text").
    """
    have = cached or {}

    def make(pairs: int) -> Batch:
        at = torch.linspace(len(lengths) - 1, len(lengths) // 2, pairs).round().long()
        here = lengths[at]
        ids = torch.arange(pairs, device=device)
        side, longest = form.resolution, int(lengths[-1])
        images = torch.full((pairs, 3, side, side), 128, dtype=torch.uint8, device=device)
        tokens = torch.zeros(pairs, longest, dtype=torch.long, device=device)
        return Batch(
            images=None if "image" in have else images,
            image_record=None if "image" in have else torch.arange(pairs),  # on the host, as lengths
            tokens=None if "text" in have else tokens,
            lengths=None if "text" in have else here,
            image_ids=ids,
            text_ids=ids,
            sample_ids=ids,
            sample_keys=ids,
            word_starts=None if "text" in have else torch.ones_like(tokens, dtype=torch.bool),
            cached={k: torch.zeros(pairs, width, device=device) for k, width in have.items()} or None,
        )

    return make
