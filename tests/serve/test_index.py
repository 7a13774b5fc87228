import json

import pytest
import torch

from diptych.core.errors import DataError, ServeError
from diptych.serve import index as index_module
from diptych.serve.index import Index, index_folder
from tests.evals import fakes
from tests.reference import top_k
from tests.serve import packed


@pytest.mark.parametrize("chunk", [1, 4, 7, 1000])
def test_chunked_top_k_is_that_of_the_loop_with_stable_ties(tmp_path, dataset, monkeypatch, chunk):
    monkeypatch.setattr(index_module, "_CHUNK", chunk)
    index = Index.build(tmp_path / "i", fakes.model(), dataset, "train")
    vectors = torch.randint(-1, 2, (len(index), 32)).float()  # whole numbers: exact, with many ties
    vectors[:, 3:] = 0
    index.embedded = index.embedded._replace(matrix=vectors.numpy())
    queries = torch.randint(-1, 2, (5, 32)).float()
    for k in (1, 6, 99):
        found = index.top(queries, k)
        for q in range(5):
            slow = top_k.best(queries[q].tolist(), vectors.tolist(), k)
            assert list(zip(found.rows[q].tolist(), found.scores[q].tolist(), strict=True)) == slow


def test_an_index_is_refused_by_another_model_or_dataset(tmp_path, dataset):
    model = fakes.model()
    Index.build(tmp_path / "i", model, dataset, "val")
    assert len(Index.open(tmp_path / "i", model, dataset, "val")) == 10
    model.fingerprint = "g" * 8
    with pytest.raises(ServeError, match=r"belong to the model .* got one of 'ffffffff' for 'gggggggg'"):
        Index.open(tmp_path / "i", model, dataset, "val")
    with pytest.raises(ServeError, match="belong to the split"):
        Index.open(tmp_path / "i", fakes.model(), dataset, "train")
    with pytest.raises(ServeError, match="belong to the dataset"):
        Index.open(tmp_path / "i", fakes.model(), packed.write(tmp_path / "other", 9), "val")
    with pytest.raises(ServeError, match=r"must hold index\.json"):
        Index.open(tmp_path / "nowhere", model, dataset, "val")
    (tmp_path / "i" / "index.json").write_text("[1]")
    with pytest.raises(ServeError, match=r"must hold index\.json"):
        Index.open(tmp_path / "i", model, dataset, "val")
    model.fingerprint = ""
    with pytest.raises(ServeError, match="a model with a fingerprint"):
        Index.build(tmp_path / "j", model, dataset, "val")


def test_the_cached_index_is_used_until_the_model_changes(tmp_path, dataset):
    model = fakes.model()
    first = Index.cached(model, tmp_path, dataset, "val")
    assert first.folder == tmp_path / "index" / f"{dataset.fingerprint[:16]}-val"
    stamp = (first.folder / "embeddings.npy").stat().st_mtime_ns
    assert (Index.cached(model, tmp_path, dataset, "val").folder / "embeddings.npy").stat().st_mtime_ns == stamp
    model.fingerprint = "new"
    again = Index.cached(model, tmp_path, dataset, "val")
    assert json.loads((again.folder / "index.json").read_text())["model"] == "new"


def test_where_indexes_are_kept(tmp_path, dataset, monkeypatch):
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    model, name = fakes.model(), f"{dataset.fingerprint[:16]}-val"
    assert index_folder(None, model, dataset, "val") == tmp_path / "cache" / "index" / "ffffffff" / name
    run = tmp_path / "run"
    assert index_folder(run / "checkpoints" / "512", model, dataset, "val") == run / "index" / f"{name}-512"
    (run / "model").mkdir(parents=True)
    (run / "config.json").write_text("{}")
    assert index_folder(run / "model", model, dataset, "val") == run / "index" / name


def test_a_query_of_another_width_is_refused(tmp_path, dataset):
    index = Index.build(tmp_path / "i", fakes.model(), dataset, "val")
    with pytest.raises(ServeError, match="width of 32; got 8"):
        index.top(torch.ones(1, 8), 3)
    with pytest.raises(DataError, match="a split of"):
        Index.build(tmp_path / "j", fakes.model(), dataset, "test")
