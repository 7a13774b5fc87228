import numpy as np
import pytest

from diptych.core.errors import EvalError
from diptych.evals.multi_label import MultiLabelConfig
from tests.evals import fakes
from tests.evals.contract import Case


def several(n, classes=10):
    """`n` images in turn of each class, which is their first label; every third has no other, some have none."""
    split = fakes.labelled(n, classes)
    for i, meta in enumerate(split._meta):
        meta["label"] = [f"kind_{i % classes}"]
    return split


def _run(model, split, artifacts=False, **settings):
    return MultiLabelConfig(**{"templates": "plain", **settings}).build().run(model, split, artifacts)


@pytest.mark.parametrize("interpolation", ["none", "11_point"])
def test_a_perfect_model_ranks_each_classes_images_first(interpolation):
    result = _run(fakes.model(by_label=True), several(40, 8), True, interpolation=interpolation)
    assert result.metrics["mean_average_precision"].value == pytest.approx(1)
    assert result.metrics["hit_at_1"].value == 1
    assert result.metrics["mean_average_precision"].chance == pytest.approx(0.125, abs=0.1)
    assert [r.n for r in result.figures[0].rows] == [5] * 8


def test_images_with_two_labels_and_with_none():
    split = several(60, 6)
    for i in range(0, 60, 10):
        split._meta[i]["label"] = [f"kind_{i % 6}", f"kind_{(i + 1) % 6}"]
    split._meta[1]["label"] = []
    result = _run(fakes.model(by_label=True), split, True, classes=tuple(f"kind_{c}" for c in range(7)))
    assert result.settings["images_without_labels"] == 1
    assert result.settings["absent_classes"] == ["kind_6"]
    assert result.metrics["hit_at_1"].value == 1
    assert len(result.items["images"].keys) == 59
    assert 0.7 < result.metrics["mean_average_precision"].value < 1  # the second label is not in the picture


def test_the_map_is_that_of_scikit_learn_over_classes():
    from sklearn.metrics import average_precision_score

    split, model = several(80, 5), fakes.model(perfect=False)
    result = _run(model, split)
    names = [f"kind {c}" for c in range(5)]
    images = model.embed_image([split.image_bytes(i) for i in range(80)])
    scores = (images @ model.embed_text(names).T).numpy()
    truth = np.eye(5)[np.arange(80) % 5]
    assert result.metrics["mean_average_precision"].value == pytest.approx(
        average_precision_score(truth, scores, average="macro"), abs=1e-6
    )


def test_errors_say_what_to_do_and_single_labels_do_not_suit():
    model = fakes.model()
    config = MultiLabelConfig()
    assert "no list label" in config.unsuited(model, fakes.labelled(6, 3))
    assert config.unsuited(model, several(6, 3)) == ""
    with pytest.raises(EvalError, match=r"must be a list of texts.*use the eval zero_shot"):
        _run(model, fakes.labelled(6, 3))
    empty = several(6, 3)
    for meta in empty._meta:
        meta["label"] = []
    with pytest.raises(EvalError, match="images with labels; got 6"):
        _run(model, empty, classes=("a 1", "b 2"))


def contract_cases():
    def maker(kind):
        return lambda perfect, n: Case(fakes.model(kind, perfect, perfect), several(n), {"templates": "plain"}, n)

    return {kind.__name__: maker(kind) for kind in (fakes.Embeds, fakes.Scores)}
