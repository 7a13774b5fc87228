import re

import pytest
import torch

from diptych.core.errors import DataError
from diptych.core.image_format import ImageFormat
from diptych.data.dataset import Dataset
from diptych.data.loader import LoaderConfig
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.two_tower import TwoTowerConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.objectives.contrastive import ContrastiveConfig
from diptych.train.config import RunConfig, TrainConfig
from diptych.train.plan import cost, memory, plan


def _run(depth: int, **train: object) -> RunConfig:
    model = TwoTowerConfig(
        image_format=ImageFormat(resolution=16),
        context_length=8,
        embed_dim=32,
        image=VisionTransformerConfig(patch_size=8, width=32, depth=depth, heads=2),
        text=TextTransformerConfig(width=32, depth=depth, heads=2),
    )
    return RunConfig(model=model, objective=ContrastiveConfig(), train=TrainConfig(**train))


def test_parameters_are_those_of_the_model():
    run = _run(2)
    model = run.model.build(100)
    measured = cost(run, 100)
    assert measured.total_parameters == sum(p.numel() for p in model.parameters())
    assert set(measured.parameters) == {"image_tower", "text_tower", "log_logit_scale"}


def test_deeper_costs_more_and_an_average_of_weights_costs_a_copy():
    shallow, deep = cost(_run(1), 100), cost(_run(3), 100)
    assert deep.flops_per_sample > 2 * shallow.flops_per_sample > 0
    assert deep.activation_bytes_per_sample > 2 * shallow.activation_bytes_per_sample > 0
    assert cost(_run(1, ema_decay=0.99), 100).fixed_bytes == shallow.fixed_bytes * 5 // 4


def test_linear_layers_cost_six_operations_a_weight_and_token():
    deep, deeper = cost(_run(2), 100), cost(_run(3), 100)
    block = 12 * 32 * 32  # weights of attention and MLP
    tokens = 5 + 8  # four patches and CLS; eight text positions
    linear = 6 * block * tokens
    attention = 12 * 32 * (5 * 5 + 8 * 8)  # two products, forward and twice backward
    assert deeper.flops_per_sample - deep.flops_per_sample == torch.tensor(linear + attention).item()


def test_the_plan_counts_the_tokenizer_that_the_run_names(data):
    run = _run(1).replace(data=LoaderConfig(path=str(data)))
    own, clip = (plan(run.replace(tokenizer=name)) for name in ("", "clip"))
    counts = [int(re.search(r"text_tower ([\d,]+\d)", text)[1].replace(",", "")) for text in (own, clip)]
    assert counts[1] - counts[0] == 32 * (49408 - Dataset.open(data).tokenizer().vocab_size)
    with pytest.raises(DataError, match="one of train, val; got 'trian'"):
        plan(run.replace(data=LoaderConfig(path=str(data), split="trian")))


@pytest.mark.slow
def test_the_plan_says_how_a_step_will_fit(data):
    run = _run(2).replace(data=LoaderConfig(path=str(data)), train=TrainConfig(global_batch=32, micro_batch=-1))
    dataset = Dataset.open(data)
    tokenizer = dataset.tokenizer()
    assert "all 256 pairs at once" in plan(_run(2).replace(data=LoaderConfig(path=str(data))))
    assert memory(run, dataset, tokenizer, 1e9).endswith("all 32 pairs at once")
    assert "pieces of" in memory(run, dataset, tokenizer, 1e6)
    given = run.replace(train=run.train.replace(micro_batch=8, checkpoint_activations=True, precision="bfloat16"))
    assert memory(given, dataset, tokenizer, 1e9).endswith("4 pieces of 8 pairs, blocks computed again")
