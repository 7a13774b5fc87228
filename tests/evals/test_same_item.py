import pytest

from diptych.core.config import from_json, to_json
from diptych.core.errors import EvalError
from diptych.evals.same_item import SameItemConfig
from tests.evals import fakes
from tests.evals.contract import Case


def _run(model, split, artifacts=False, **settings):
    return SameItemConfig(bootstrap=100, **settings).build().run(model, split, artifacts)


def _told(n, classes):
    """Records of some classes whose captions name the class and the record."""
    split = fakes.labelled(n, classes)
    split._captions = [(f"kind {i % classes} view {i}",) for i in range(n)]
    return split


@pytest.mark.parametrize("query", ["image", "text"])
@pytest.mark.parametrize("gallery", ["image", "text"])
def test_any_finds_any(query, gallery):
    model = fakes.model(by_label=True)
    result = _run(model, _told(40, 10), True, query=query, gallery=gallery)
    for name in ("recall_at_1", "recall_at_5", "mrr", "map_at_r"):
        e = result.metrics[name]
        assert (e.value, e.n) == (1, 10)  # ten things are ten independent items
        assert e.above_chance
    assert result.settings["queries"] == 40
    assert from_json(to_json(result)).metrics == result.metrics
    assert len(result.figures) == 2
    assert all(figure.html() for figure in result.figures)


def test_the_item_itself_and_its_copies_are_no_answers():
    split = fakes.labelled(6, 3)  # two of each kind
    split.images[3] = split.images[0]  # the second of kind 0 is a copy of the first
    result = _run(fakes.model(by_label=True), split)
    assert result.settings["queries"] == 4
    assert result.settings["without_a_right_answer"] == 2
    assert result.metrics["recall_at_1"].value == 1
    assert result.metrics["recall_at_1"].chance == pytest.approx(1 / 5)
    alike = _told(8, 4)
    alike._captions = [(f"kind {i % 4}",) for i in range(8)]  # equal words in every record of a kind
    with pytest.raises(
        EvalError, match=r"at least 2 values of 'label' that two records share; got 0.*same_field=FIELD"
    ):
        _run(fakes.model(by_label=True), alike, query="text", gallery="text")


def test_chance_counts_what_is_right_for_each_query():
    split = fakes.labelled(12, 2)
    split._meta = [{"thing": "a" if i < 2 else "b"} for i in range(12)]
    found = _run(fakes.model(perfect=False), split, same_field="thing").metrics["recall_at_1"]
    assert found.chance == pytest.approx((2 * 1 / 11 + 10 * 9 / 11) / 12)


def test_a_collapsed_model_takes_ties_as_named():
    split, kind = fakes.labelled(20, 10), fakes.model(fakes.Collapsed)
    found = {t: _run(kind, split, ties=t).metrics for t in ("optimistic", "half", "pessimistic")}
    assert found["optimistic"]["recall_at_1"].value == 1
    assert found["half"]["recall_at_10"].value == 1
    assert found["half"]["recall_at_5"].value == found["pessimistic"]["recall_at_10"].value == 0
    assert found["half"]["map_at_r"].value == pytest.approx(found["half"]["map_at_r"].chance)


def test_items_add_up_and_many_captions_are_many_queries():
    split = _told(24, 6)
    split._captions = [(f"kind {i % 6} view {i}", f"kind {i % 6} again {i}") for i in range(24)]
    result = _run(fakes.model(perfect=False), split, True, query="text", gallery="image")
    table = result.items["queries"]
    assert len(table.keys) == len(set(table.keys)) == 48
    for name, values in table.values.items():
        assert sum(values) / 48 == pytest.approx(result.metrics[name].value)


def test_it_says_where_it_does_not_suit():
    config, model = SameItemConfig(), fakes.model()
    assert config.unsuited(model, fakes.labelled(20, 4)) == ""
    assert config.unsuited(model, fakes.pairs(5)) == "no 'label' in the meta"
    assert config.unsuited(model, fakes.labelled(5, 5)) == "no two share a label"
    assert config.unsuited(fakes.model(fakes.Scores), fakes.labelled(20, 4)) == "the model has no embed_image"
    assert SameItemConfig(query="text").build().needs == ("embed_image", "embed_text")


def contract_cases():
    def case(perfect, n):
        return Case(fakes.model(fakes.Embeds, perfect, by_label=True), fakes.labelled(n, n // 4), {}, n // 4)

    return {"Embeds": case}
