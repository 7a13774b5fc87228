"""A bias, a miscalibration, a leak and a hallucination: each is found by its own eval, and by no other.

One world for all: pictures whose class is drawn by the very probabilities that the honest model gives them, of two
groups, with captions that name their objects. Each fault is planted into it alone.
"""

import functools
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from diptych.core.record import Record
from diptych.data.dataset import Dataset
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.source import FromRecords
from diptych.evals.find import config_for
from tests.evals import fakes, leaky_data
from tests.evals.fake_writer import writer
from tests.evals.test_calibration import Honest, _row

N = 400
GROUPS = ("north", "south")
FAULTS = ("nothing", "bias", "calibration", "memorisation", "chair")
EVALS = FAULTS[1:]


class Unfair(Honest):
    """Sees nothing in pictures of the second group, and says so: it is unfair to them, not overconfident."""

    def embed_image(self, images):
        rows = super().embed_image(images)
        red, green, _ = images[:, :, 0, 0].long().unbind(1)
        rows[(red * 256 + green) % 2 == 1, :6] = 0
        return torch.nn.functional.normalize(rows, dim=1)


def _record(number, split):
    p = torch.softmax(5 * _row(number)[:6].double(), 0).numpy()
    label = int((p.cumsum() > np.random.default_rng(10**6 + number).random()).argmax())
    meta = {"split": split, "label": f"kind_{label}", "class_index": label, "group": GROUPS[number % 2]}
    meta["objects"] = [("dog", "cat", "car")[number % 3]]
    caption = f"{'the' if split == 'train' else 'a'} {meta['objects'][0]} {number}"  # equal records are packed once
    return Record.pair(f"{split} {number}", leaky_data.numbered(number), "png", (caption,), meta=meta)


@functools.lru_cache
def _world(leak):
    """The held-out split, of whose pictures a quarter are in the training split too if there is a leak."""
    train = [*range(N // 4), *range(20_000, 20_000 + N)] if leak else range(20_000, 20_000 + N)
    records = [*(_record(i, "train") for i in train), *(_record(i, "val") for i in range(N))]
    folder = Path(tempfile.mkdtemp()) / "data"
    config = PackConfig(tokenizer="none", jobs=1, val=0.0)
    pack(FromRecords(lambda: records), folder, config)
    return Dataset.open(folder).split("val")


def _embedder(fault):
    model = fakes.model(Unfair if fault == "bias" else Honest)
    with torch.no_grad():
        model.model.log_logit_scale.fill_(float(np.log(20 if fault == "calibration" else 5)))
    return model


def _writer(fault, split):
    more = [" near a bus" if fault == "chair" and i % 4 == 0 else "" for i in range(N)]
    said = [(re.sub(r"\d+", "", split.captions(i)[0]) + more[i],) for i in range(N)]  # it knows few words
    return writer(fakes.FakeSplit([split.image_bytes(i) for i in range(N)], said))


def _finds(name, fault):
    """Whether the eval finds something in a world with that fault."""
    split = _world(fault == "memorisation")
    settings = {"templates": "plain"} if name in ("bias", "calibration") else {}
    model = _writer(fault, split) if name == "chair" else _embedder(fault)
    settings |= {"max_items": 60} if name == "chair" else {}
    result = config_for(name, data=str(split.shards[0].parent.parent), **settings).build().run(model, split, False)
    if name == "bias":
        return result.settings["p_values"]["group_gap"] < 0.01
    if name == "calibration":
        return result.metrics["overconfidence"].low > 0
    if name == "memorisation":
        return result.metrics["near_copy_share"].low > 0.05
    return result.metrics["chair_s"].low > 0.05


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", EVALS)
def test_each_fault_is_found_by_its_eval_and_by_no_other(name, fault):
    assert _finds(name, fault) == (name == fault)
