import numpy as np

from diptych.evals.items import item_table, numbered


def test_a_table_holds_arrays_and_hits_as_bytes():
    table = item_table(["a", "b"], {"hit": np.array([True, False]), "rank": np.array([1, 4])}, np.array([3, 3]))
    assert table.keys == ("a", "b")
    assert table.values["hit"].tolist() == [True, False]
    assert table.values["hit"].nbytes == 2
    assert table.values["rank"].tolist() == [1.0, 4.0]
    assert table.clusters.tolist() == [3, 3]
    assert item_table(["a"], {"hit": np.ones(1)}).clusters is None


def test_tables_are_equal_where_all_is():
    def made(values=(1, 4), clusters=(3, 3), keys=("a", "b")):
        held = None if clusters is None else np.array(clusters)
        return item_table(keys, {"rank": np.array(values)}, held)

    assert made() == made()
    for other in (made(values=(1, 5)), made(clusters=(3, 4)), made(clusters=None), made(keys=("a", "c"))):
        assert made() != other


def test_items_of_one_record_are_numbered_in_their_order():
    assert numbered(["x", "y", "x", "x"]) == ["x#0", "y#0", "x#1", "x#2"]
