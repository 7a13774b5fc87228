import math
from collections import Counter

import pytest
import torch

from diptych.data.dataset import Dataset
from diptych.data.loader import LoaderConfig
from diptych.train.chance import unigram_entropy


def test_it_is_the_entropy_of_the_tokens_that_bear_loss(data):
    split, tokenizer = Dataset.open(data).split("train"), Dataset.open(data).tokenizer()
    config = LoaderConfig(path=str(data), captions="first", workers=0)
    counted: Counter[int] = Counter()
    for i in range(len(split)):
        counted.update(tokenizer.encode(split.captions(i)[0]).ids[1:])
    total = sum(counted.values())
    plain = -sum(n / total * math.log(n / total) for n in counted.values())
    found = unigram_entropy(split, tokenizer, config, seed=0)
    assert found == pytest.approx(plain + (len(counted) - 1) / (2 * total))
    assert found < math.log(tokenizer.vocab_size)


def test_it_is_a_function_of_the_seed_and_disturbs_nothing(data):
    split, tokenizer = Dataset.open(data).split("train"), Dataset.open(data).tokenizer()
    state = torch.get_rng_state()
    one, two = (unigram_entropy(split, tokenizer, LoaderConfig(path=str(data)), seed=3) for _ in range(2))
    assert one == two
    assert torch.equal(torch.get_rng_state(), state)
