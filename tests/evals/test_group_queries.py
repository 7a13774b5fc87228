import pytest

from diptych.core.errors import EvalError
from diptych.evals.group_queries import names_a_group, read_queries
from diptych.evals.groups import read_groups
from tests.evals import fakes


def _found(captions, values, wanted="", classes=(), most=3):
    split = fakes.FakeSplit([fakes.picture(i) for i in range(len(captions))], captions, [{"group": v} for v in values])
    places = range(len(captions))
    return read_queries(wanted, split, places, read_groups(split, places, ""), classes, most)


CAPTIONS = [("cat", "a cat"), ("cat", "cat", "dog"), ("dog",), ("only x", "man"), ("only x", "man"), ("only x", "man")]
GROUPS = ["x", "y", "y", "man", "man", "man"]


def test_common_captions_of_several_groups_come_first():
    queries, source = _found(CAPTIONS, GROUPS)
    # "only x" and "man" name groups; "cat" is carried by two images of two groups, "dog" by two of one
    assert queries == ("cat", "dog", "a cat")
    assert "captions" in source
    assert _found(CAPTIONS, GROUPS, most=1)[0] == ("cat",)


def test_other_sources(tmp_path):
    assert _found(CAPTIONS, GROUPS, ("a", "b")) == (("a", "b"), "the settings")
    assert _found(CAPTIONS, GROUPS, classes=("one", "two"))[0] == ("a photo of a one.", "a photo of a two.")
    path = tmp_path / "queries.txt"
    path.write_text("a doctor\n\na nurse\n")
    assert _found(CAPTIONS, GROUPS, str(path)) == (("a doctor", "a nurse"), "queries.txt")
    with pytest.raises(EvalError, match=r"text file with one a line; got .*none.txt.*No such file"):
        _found(CAPTIONS, GROUPS, str(tmp_path / "none.txt"))
    with pytest.raises(EvalError, match="at least one; got none from the settings"):
        _found(CAPTIONS, GROUPS, ())


def test_a_group_is_named_by_whole_words():
    assert names_a_group("A Man, running", ["man"])
    assert not names_a_group("a woman", ["man"])
    assert names_a_group("the sea-side", ["sea side"])
