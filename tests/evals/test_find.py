import numpy as np
import pytest

from diptych.core.config import from_json
from diptych.core.errors import ConfigError, DataError
from diptych.evals import find
from diptych.evals.eval import Estimate, EvalResult
from diptych.evals.items import item_table
from diptych.evals.retrieval import RetrievalConfig


def _result(data: str = "") -> EvalResult:
    metrics = {"t2i_recall_at_1": Estimate(value=0.5, low=0.4, high=0.6)}
    return EvalResult(task="retrieval", data=data, split="val", metrics=metrics)


def test_the_folder_is_the_registry():
    assert {"captioning", "retrieval", "vqa", "zero_shot"} <= set(find.names())
    assert find.config_for("retrieval", max_items=5) == RetrievalConfig(max_items=5)
    with pytest.raises(ConfigError, match=r"got 'zeroshot'\. Did you mean 'zero_shot'"):
        find.config_for("zeroshot")
    with pytest.raises(ConfigError, match="RetrievalConfig must have only fields that it knows; got 'classes'"):
        find.config_for("retrieval", classes="x")


def test_results_are_kept_in_the_run(tmp_path):
    path = find.save(_result("somewhere/emoji"), tmp_path)
    assert path == tmp_path / "evals" / "retrieval-val.json"
    assert from_json(path.read_text()) == _result("somewhere/emoji")
    assert find.save(_result("somewhere/emoji"), tmp_path) == path
    assert find.save(_result("other/digits"), tmp_path).name == "retrieval-digits-val.json"
    assert find.save(_result(), tmp_path / "checkpoints" / "4096").name == "retrieval-val-4096.json"
    (tmp_path / "config.json").write_text("{}")
    assert find.result_path(_result("somewhere/emoji"), tmp_path / "model") == path


def test_a_result_comes_back_with_its_items(tmp_path):
    table = item_table(("b", "a é"), {"acc_at_1": np.array([1.0, 0.25])}, np.array([3, 3]))
    bare = item_table(("x",), {"mrr": np.array([0.5]), "hit": np.array([True])})
    settings = {"label": "own"}
    result = EvalResult(
        task="zero_shot", data="d", split="val", metrics={}, settings=settings, items={"i": table, "t": bare}
    )
    path = find.save(result, tmp_path)
    assert path.name == "zero_shot-own-val.json"
    assert find.read_result(path) == result
    assert find.results_of(tmp_path) == [result]
    assert "a é" not in path.read_text()
    find.save(result.replace(items={}), tmp_path)
    assert find.read_result(path).items == {}
    path.write_text("{}")
    with pytest.raises(DataError, match=r"must be a result as diptych eval writes it"):
        find.read_result(path)
