"""Vectors of records by a model, shard by shard."""

import json
from functools import partial

import numpy as np
import pytest

from diptych.checkpoints.native import load
from diptych.core.errors import ConfigError, ServeError
from diptych.data.candidates import CandidatePool
from diptych.data.executors.executor import executor
from diptych.data.vectors import has_vector, read_vectors
from diptych.serve import embed_dataset as module
from diptych.serve.embed_dataset import EmbeddingConfig, embed_dataset
from tests.serve.asked import CAPTIONS, asked, stopped_and_gone_on


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """(dataset, one that embeds, one that writes)."""
    return asked(tmp_path_factory.mktemp("asked"))


def vectors(data, name: str) -> np.ndarray:
    pool = CandidatePool(data)
    return np.concatenate([read_vectors(pool, name, pool.rows(s)) for s in pool.shards])


def test_a_records_vector_is_the_models(folders) -> None:
    data, embeds, _ = folders
    folder = embed_dataset(data, str(embeds), "images", executor("pool", 1), EmbeddingConfig(batch_size=2))
    embed_dataset(data, str(embeds), "texts", executor("pool", 1), EmbeddingConfig(of="text", batch_size=2))
    assert folder == data / "vectors" / "images"
    model, split = load(embeds), CandidatePool(data).dataset.split("train")
    images, texts = vectors(data, "images"), vectors(data, "texts")
    assert has_vector(images).all()
    assert has_vector(texts).all()
    for i in range(7):
        np.testing.assert_allclose(images[i], model.embed_image(split.image_bytes(i))[0], atol=1e-3)  # float16
        np.testing.assert_allclose(texts[i], model.embed_text(CAPTIONS[i][0])[0], atol=1e-3)


def test_what_was_stopped_goes_on_and_another_model_needs_another_name(folders) -> None:
    data, embeds, writes = folders
    again = partial(embed_dataset, data, str(embeds), "again", executor("pool", 1))
    folder = stopped_and_gone_on(module, "write_vectors", again)
    assert np.isfinite(vectors(data, "again")).all()
    assert json.loads((folder / "about.json").read_text())["model"] == load(embeds).fingerprint
    with pytest.raises(ConfigError, match="another --name"):
        embed_dataset(data, str(embeds), "again", executor("pool", 1), EmbeddingConfig(of="text"))
    with pytest.raises(ServeError, match="needs a model with embed_image"):
        embed_dataset(data, str(writes), "other", executor("pool", 1))


def test_a_record_without_a_readable_image_has_no_vector(folders, monkeypatch) -> None:
    data, embeds, _ = folders
    pool = CandidatePool(data)
    rows = pool.rows(pool.shards[0])
    image = rows.image
    monkeypatch.setattr(rows, "image", lambda i: b"broken" if i == 1 else image(i))
    found = module.vectors_of(load(embeds), rows, EmbeddingConfig())
    assert has_vector(found).tolist() == [True, False, True]
    monkeypatch.setattr(rows, "image", lambda i: b"broken")
    assert module.vectors_of(load(embeds), rows, EmbeddingConfig()).shape == (3, 0)
