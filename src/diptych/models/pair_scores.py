"""Every image against every text where a head judges pairs: some pairs at a time, so that memory does not grow."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

PAIRS = 64
"""Pairs that are judged at once."""


def log_odds(
    judge: Callable[[Tensor, Tensor, Tensor], Float[Tensor, "n 2"]],
    image: Float[Tensor, "i *p"],
    text: Tensor,
    lengths: Int64[Tensor, " b"],
) -> Float[Tensor, "i b"]:
    """Logit of "match" minus that of "no match", of every row of `image` with every row of `text`.

    `judge` gives both logits ("no match" first) of n images, n texts and these texts' lengths, each row by row.
    """
    every = torch.cartesian_prod(torch.arange(len(image)), torch.arange(len(text)))
    found = []
    for i, b in (some.unbind(1) for some in every.split(PAIRS)):
        logits = judge(image[i.to(image.device)], text[b.to(text.device)], lengths[b.to(lengths.device)])
        found.append(logits[:, 1] - logits[:, 0])
    return torch.cat(found).view(len(image), len(text))
