"""Judging a model while it trains and when it is done: the objective on held-out pairs, and the run's evals."""

import math
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from diptych.core.distributed import all_sum, rank, world_size
from diptych.core.errors import DiptychError
from diptych.core.progress import say
from diptych.data.augment import NO_AUGMENTATION
from diptych.data.dataset import Dataset
from diptych.data.features import FeatureTable
from diptych.data.loader import Loader
from diptych.data.tokenize import Tokenizer
from diptych.evals.eval import EvalConfig, EvalResult
from diptych.evals.find import save
from diptych.evals.open_data import open_data
from diptych.models.pretrained import Pretrained
from diptych.objectives.objective import Objective
from diptych.train.accumulate import Accumulator
from diptych.train.batch_norms import share_running_statistics
from diptych.train.config import RunConfig
from diptych.train.sight import Sight


@torch.no_grad()
def validation(
    config: RunConfig,
    dataset: Dataset,
    tokenizer: Tokenizer,
    objective: Objective,
    accumulate: Accumulator,
    device: torch.device,
    features: Mapping[str, FeatureTable] | None = None,
) -> dict[str, float]:
    """ "val_loss", the mean loss of the first batches of the validation split, not augmented; empty without such a
    split. Of an objective that writes about images also what they are worth to it (`sight.Sight.numbers`).

    All ranks take part. Batches are of the training size where there are enough records, so the number compares.
    `features` are tables of the split, as the loader reads them.
    """
    records = len(dataset.splits["val"]) if "val" in dataset.splits else 0
    batch = min(config.train.global_batch, records) // world_size() * world_size()
    count = min(config.train.val_batches, records // batch if batch else 0)
    if count == 0 or batch < 2:
        return {}
    plain = config.data.replace(split="val", augment=NO_AUGMENTATION, workers=0, cache="none", curriculum=None)
    loader = Loader(
        dataset.splits["val"],
        tokenizer if "text" in objective.uses else None,
        config.model.image_format if "image" in objective.uses else None,
        plain,
        seed=config.train.seed,
        global_batch=batch,
        rank=rank(),
        world_size=world_size(),
        features=features,
    )
    if objective.couples_pairs:
        loader.one_image(objective.takes_alone)
    if "words" in objective.uses:
        loader.mark_words()
    share_running_statistics(objective)  # or each rank would judge a model of its own
    objective.eval()
    total = torch.zeros((), dtype=torch.float64, device=device)
    sight = Sight(accumulate) if objective.writes and "image" in objective.uses and not config.data.blind else None
    with closing(loader.batches(0, count * batch)) as batches:
        for one in batches:
            one = one.to(device)
            total += accumulate.loss_only(one).total.double() if sight is None else sight.loss(one)
    objective.train()
    numbers = {"val_loss": float(all_sum(total)) / (count * world_size())}
    return numbers if sight is None else numbers | sight.numbers()


def evaluate(
    config: RunConfig, dataset: Dataset, model: Pretrained, run: Path, samples_seen: int, final: bool
) -> Iterator[dict[str, Any]]:
    """Each eval of the run, as a record for the log; the final ones are kept in RUN/evals with pictures."""
    for one in config.evals:
        try:
            result = evaluate_one(one, model, dataset, artifacts=final)
        except DiptychError as error:
            if final:
                raise
            say(f"{type(one).__name__} is left out at {samples_seen:,} samples: {error}")
            continue
        numbers = {n: e for n, e in result.metrics.items() if all(map(math.isfinite, (e.value, e.low, e.high)))}
        result = result.replace(samples_seen=samples_seen, metrics=numbers)  # JSON knows no NaN
        if final:
            save(result, run)
        yield {"task": result.task, "split": result.split} | {n: e.value for n, e in numbers.items()}


def evaluate_one(config: EvalConfig, model: Pretrained, dataset: Dataset, artifacts: bool) -> EvalResult:
    """One eval on the split that it names, of the run's data unless it names another."""
    data = open_data(config.data) if config.data else dataset
    config = config.replace(data=str(data.path))
    return config.build().run(model, data.split(data.held_out(config.split)), artifacts=artifacts)
