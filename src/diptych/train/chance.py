"""What a model that writes reaches without having learnt more than how often each token comes."""

import math
from contextlib import closing

import torch

from diptych.data.dataset import Split
from diptych.data.loader import Loader, LoaderConfig
from diptych.data.tokenize import Tokenizer

SAMPLED = 2048
"""Samples whose texts are counted: the first ones of the run."""


def unigram_entropy(split: Split, tokenizer: Tokenizer, config: LoaderConfig, seed: int) -> float:
    """The entropy, in nats, of the tokens that bear loss in the run's first texts: the loss of the best guess that
    sees neither the image nor the words before.

    What few texts show too small is made up for (Miller 1955: (kinds - 1) / (2 tokens)); at most ln(vocabulary).
    """
    count, size = min(SAMPLED, len(split)), 256
    plain = config.replace(workers=0, tokens="live", cache="none")
    found = torch.zeros(tokenizer.vocab_size, dtype=torch.int64)
    loader = Loader(split, tokenizer, None, plain, seed, min(size, count))
    with closing(loader.batches(0, count)) as batches:
        for batch in batches:
            assert batch.tokens is not None
            assert batch.lengths is not None
            places = torch.arange(batch.tokens.shape[1])
            bears = (places > 0) & (places < batch.lengths[:, None]) if batch.loss_mask is None else batch.loss_mask
            found += torch.bincount(batch.tokens[bears], minlength=len(found))
    total = int(found.sum())
    if not total:
        return math.log(tokenizer.vocab_size)
    share = found[found > 0].double() / total
    entropy = float(-(share * share.log()).sum()) + (len(share) - 1) / (2 * total)
    return min(entropy, math.log(tokenizer.vocab_size))
