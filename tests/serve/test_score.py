"""Scores of pairs by a model, shard by shard."""

import json
from functools import partial

import numpy as np
import pytest

from diptych.checkpoints.native import load
from diptych.core.errors import ConfigError
from diptych.data.candidates import CandidatePool
from diptych.data.executors.executor import executor
from diptych.serve import score as module
from diptych.serve.score import ScoringConfig, score_dataset
from tests.serve.asked import CAPTIONS, asked, stopped_and_gone_on


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """(dataset, one that embeds, one that writes)."""
    return asked(tmp_path_factory.mktemp("asked"))


def values(data, name: str) -> np.ndarray:
    pool = CandidatePool(data)
    return np.concatenate([pool.rows(s).scores(name) for s in pool.shards])


def test_a_pairs_score_is_the_cosine_of_its_vectors(folders) -> None:
    data, embeds, _ = folders
    score_dataset(data, str(embeds), "cosine", executor("pool", 1))
    score_dataset(data, str(embeds), "most", executor("pool", 1), ScoringConfig(captions="max"))
    model, split = load(embeds), CandidatePool(data).dataset.split("train")
    for i, found in enumerate(values(data, "cosine")):
        image = model.embed_image(split.image_bytes(i))[0]
        cosines = model.embed_text(list(CAPTIONS[i])) @ image
        assert found == pytest.approx(float(cosines[0]), abs=1e-5)
        assert values(data, "most")[i] == pytest.approx(float(cosines.max()), abs=1e-5)


def test_one_that_writes_gives_log_p(folders) -> None:
    data, _, writes = folders
    score_dataset(data, str(writes), "likely", executor("pool", 1))
    model, split = load(writes), CandidatePool(data).dataset.split("train")
    alone = model.score(split.image_bytes(2), CAPTIONS[2][0])[0, 0]
    assert values(data, "likely")[2] == pytest.approx(float(alone), rel=1e-4)


def test_what_was_stopped_goes_on_and_another_model_needs_another_name(folders) -> None:
    data, embeds, writes = folders
    again = partial(score_dataset, data, str(embeds), "again", executor("pool", 1))
    folder = stopped_and_gone_on(module, "write_scores", again)
    assert np.array_equal(values(data, "again"), values(data, "cosine"))
    assert json.loads((folder / "about.json").read_text())["model"] == load(embeds).fingerprint
    with pytest.raises(ConfigError, match="another --name"):
        score_dataset(data, str(writes), "again", executor("pool", 1))
