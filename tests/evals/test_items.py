import numpy as np

from diptych.evals.items import item_table, numbered


def test_a_table_holds_plain_numbers():
    table = item_table(["a", "b"], {"hit": np.array([True, False]), "rank": np.array([1, 4])}, np.array([3, 3]))
    assert table.keys == ("a", "b")
    assert table.values == {"hit": (1.0, 0.0), "rank": (1.0, 4.0)}
    assert table.clusters == (3, 3)
    assert item_table(["a"], {"hit": np.ones(1)}).clusters == ()


def test_items_of_one_record_are_numbered_in_their_order():
    assert numbered(["x", "y", "x", "x"]) == ["x#0", "y#0", "x#1", "x#2"]
