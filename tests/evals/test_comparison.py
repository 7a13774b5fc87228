import json
from dataclasses import replace

import numpy as np
import pytest

from diptych.core.config import to_dict
from diptych.core.errors import EvalError
from diptych.evals.comparison import compare_folders, compare_results
from diptych.evals.eval import Estimate, EvalResult
from diptych.evals.find import save
from diptych.evals.items import item_table, numbered
from diptych.evals.statistics import mean_estimate

N = 240


def _result(task="zero_shot", better=0.0, seed=0, **values) -> EvalResult:
    """A result on N images: the items are equally hard for all models, and a better one has more of them right."""
    hard = np.random.default_rng(7).random(N)
    drawn = np.random.default_rng(100 + seed)
    hits = (hard + drawn.normal(0, 0.05, N) < 0.5 + better).astype(float)
    flat = np.clip(drawn.random(N), 0, 1)
    headline = {"zero_shot": "acc_at_1", "retrieval": "t2i_recall_at_1", "vqa": "accuracy"}[task]
    items = {
        "zero_shot": {"images": item_table([f"u{i}" for i in range(N)], {headline: hits, "acc_at_5": flat})},
        "retrieval": {
            "captions": item_table(numbered([f"u{i // 2}" for i in range(N)]), {headline: hits}, np.arange(N) // 2)
        },
        "vqa": {
            "questions": item_table(numbered([f"u{i // 3}" for i in range(N)]), {headline: hits}, np.arange(N) // 3)
        },
    }[task]
    metrics = {m: mean_estimate(np.array(v)) for t in items.values() for m, v in t.values.items()}
    metrics["ece"] = Estimate(value=0.1 + better, low=0.0, high=0.3, n=N, higher_is_better=False)
    return EvalResult(task=task, **{"data": "d", "split": "val", "metrics": metrics, "items": items, **values})


def test_a_better_model_is_found_and_an_equal_one_is_not():
    found = compare_results([[_result(better=0.15)]], [[_result(seed=1)]], "new", "old")
    rows = {r.metric: r for r in found.rows}
    head = rows["acc_at_1"]
    assert (head.verdict, head.family, head.n) == ("better", "headline", N)
    assert head.words.startswith("better by ")
    assert head.low <= head.difference <= head.high
    assert head.difference == pytest.approx(head.a - head.b)
    assert rows["acc_at_5"].verdict == "indistinguishable"
    assert f"indistinguishable at this n ({N} images); about" in rows["acc_at_5"].words
    assert rows["ece"].p_value is None
    assert rows["ece"].words == "no test: no mean over items"
    assert any("seeds are not accounted for" in n for n in found.notes)
    assert json.loads(json.dumps(to_dict(found)))["rows"][0]["metric"] == "acc_at_1"
    back = compare_results([[_result(seed=1)]], [[_result(better=0.15)]])
    assert back.rows[0].verdict == "worse"
    assert back.rows[0].difference == pytest.approx(-head.difference)


def test_lower_can_be_better():
    def loss(shift, seed):
        values = np.clip(np.random.default_rng(seed).normal(0.4 + shift, 0.1, N), 0, 1)
        table = {"images": item_table([f"u{i}" for i in range(N)], {"loss": values})}
        estimate = mean_estimate(values).replace(higher_is_better=False)
        return [EvalResult(task="mine", data="d", split="val", metrics={"loss": estimate}, items=table)]

    (row,) = compare_results([loss(-0.1, 0)], [loss(0.0, 1)]).rows
    assert (row.verdict, row.family) == ("better", "headline")  # an eval that this version does not have: its first
    assert row.difference < 0


def test_headlines_are_a_family_of_their_own_and_the_others_are_adjusted_for_all():
    a = [_result(t, 0.03) for t in ("zero_shot", "retrieval", "vqa")]
    b = [_result(t, seed=1) for t in ("zero_shot", "retrieval", "vqa")]
    rows = compare_results([a], [b]).rows
    tested = [r for r in rows if r.p_value is not None]
    heads = [r for r in tested if r.family == "headline"]
    assert (len(tested), len(heads)) == (4, 3)
    assert min(heads, key=lambda r: r.p_value).holm == pytest.approx(min(1, 3 * min(r.p_value for r in heads)))
    other = next(r for r in tested if r.family == "all")
    place = sorted(r.p_value for r in tested).index(other.p_value)
    assert other.holm >= min(1, (4 - place) * other.p_value) - 1e-12
    assert {r.task: r.n for r in heads} == {"zero_shot": N, "retrieval": N // 2, "vqa": N // 3}
    assert "images" in next(r for r in heads if r.task == "vqa").words


def test_runs_that_differ_by_their_seeds_are_groups():
    a = [[_result(better=0.15, seed=s)] for s in range(3)]
    b = [[_result(seed=s)] for s in range(10, 13)]
    found = compare_results(a, b)
    head = found.rows[0]
    assert (found.runs_a, found.runs_b, head.verdict) == (3, 3, "better")
    assert not any("seeds are not" in n for n in found.notes)
    assert head.a == pytest.approx(np.mean([r[0].metrics["acc_at_1"].value for r in a]))
    same = compare_results(b, [[_result(seed=s)] for s in range(20, 23)]).rows[0]
    assert "240 images, 3 and 3 seeds" in same.words


def test_items_are_paired_by_their_keys():
    a, b = _result(better=0.1), _result(seed=1)
    turned = {
        n: replace(t, keys=t.keys[::-1], values={m: v[::-1] for m, v in t.values.items()}) for n, t in b.items.items()
    }
    one, other = compare_results([[a]], [[b]]), compare_results([[a]], [[b.replace(items=turned)]])
    assert one.rows == other.rows
    table = b.items["images"]
    less = replace(table, keys=table.keys[5:], values={m: v[5:] for m, v in table.values.items()})
    found = compare_results([[a]], [[b.replace(items={"images": less})]])
    assert found.rows[0].n == N - 5
    assert "zero_shot: 5 item(s) that not every run has are left out of the test." in found.notes
    foreign = replace(table, keys=tuple(f"v{i}" for i in range(N)))
    assert (
        compare_results([[a]], [[b.replace(items={"images": foreign})]]).rows[0].words == "no test: no items in common"
    )


def test_what_means_something_else_is_not_compared():
    def why(**values):
        found = compare_results([[_result()]], [[_result(seed=1, **values)]], "new", "old")
        assert not found.rows
        (one,) = found.not_compared
        return one.why

    assert why(data="e") == "evaluated on different data: d, and old on e"
    assert why(split="test") == "evaluated on different splits: val, and old on test"
    given = [{"templates": "clip", "batch_size": 8}, {"templates": "simple", "batch_size": 16}]
    a, b = (_result(settings=s) for s in given)
    (one,) = compare_results([[a]], [[b]]).not_compared
    assert one.why == "evaluated with different settings, templates: clip and simple"
    assert compare_results([[a]], [[a.replace(settings={**given[0], "batch_size": 9})]]).rows
    lists = [_result(settings={"class_names": [f"class {i} {w}" for i in range(40)]}) for w in "ab"]
    (one,) = compare_results([[lists[0]]], [[lists[1]]]).not_compared
    assert one.why == "evaluated with different settings, class_names"


def test_different_ways_of_scoring_are_compared_and_said():
    a, b = (_result(seed=s, settings={"scored_by": w}) for s, w in enumerate(("embeddings", "log_likelihood")))
    found = compare_results([[a]], [[b]])
    assert found.rows
    assert "zero_shot: the models score pairs in different ways (embeddings, log_likelihood)." in found.notes


def test_a_run_s_last_result_counts():
    early, late = _result(better=-0.3, samples_seen=10), _result(better=0.2, samples_seen=20)
    assert compare_results([[late, early]], [[_result(seed=1)]]).rows[0].a == late.metrics["acc_at_1"].value


def test_folders_and_what_is_wrong_with_them(tmp_path):
    for name, better in (("a", 0.2), ("b", 0.0)):
        save(_result(better=better, seed=int(better > 0)), tmp_path / name)
    found = compare_folders([tmp_path / "a"], [tmp_path / "b"])
    assert (found.a, found.b, found.rows[0].verdict) == ("a", "b", "better")
    (tmp_path / "empty").mkdir()
    with pytest.raises(EvalError, match=r"empty without results.*diptych eval A B --suite quick --data DIR"):
        compare_folders([tmp_path / "a"], [tmp_path / "empty"])
    with pytest.raises(EvalError, match="a run must be a folder; got"):
        compare_folders([tmp_path / "a"], [tmp_path / "none"])
    with pytest.raises(EvalError, match=r"different runs; got .*a twice"):
        compare_folders([tmp_path / "a"], [tmp_path / "a"])
