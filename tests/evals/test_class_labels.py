import pytest

from diptych.core.errors import EvalError
from diptych.evals.class_labels import label_classes, read_label_lists, read_labels
from tests.evals import fakes


def test_labels_and_where_they_come_from():
    split = fakes.labelled(4, 2)
    assert read_labels(split, [1, 2], "") == ("label", {1: "kind_1", 2: "kind_0"})
    assert read_labels(split, [1], "class_index") == ("class_index", {1: 1})
    split._meta[1] = {"label": ["a", "b", "a"]}
    assert read_label_lists(split, [1], "") == ("label", {1: ("a", "b")})
    with pytest.raises(EvalError, match=r"a text or a whole number.*multi_label"):
        read_labels(split, [0, 1], "")
    with pytest.raises(EvalError, match=r"a list of texts or whole numbers.*got 'kind_0'"):
        read_label_lists(split, [0, 1], "")


def test_numbers_without_names_are_called_by_their_numbers(tmp_path):
    classes = label_classes("", None, [0, 3, 3])
    assert classes.names == ("0", "1", "2", "3")
    assert classes.index_of(3, "") == 3
    assert label_classes("", None, ["b", "a"]).names == ("a", "b")
    assert label_classes(("x", "y"), None, [0, 1]).names == ("x", "y")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert label_classes("", tmp_path, [0, 1]).names == ("cat", "dog")
    with pytest.raises(EvalError, match="at least 2 classes"):
        label_classes("", None, [0, 0])
