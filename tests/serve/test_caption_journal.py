import pytest

from diptych.core.errors import ConfigError, DataError
from diptych.serve.caption_journal import Journal, Written

ROWS = [Written("a", "", ["one"], [0.5], [1.5, 2]), Written("b", "no_image"), Written("c", "", ["zwei ü"])]


def test_a_journal_is_gone_on_with_behind_its_last_whole_line(tmp_path):
    path = tmp_path / "x.jsonl"
    Journal(path, {"seed": 1}).add(ROWS[:2])
    with path.open("a") as file:
        file.write('{"uid": "c", "wri')  # cut off
    again = Journal(path, {"seed": 1})
    assert again.count == 2
    again.add(ROWS[2:])
    found = list(Journal(path, {"seed": 1}).lines())
    assert [r.uid for r in found] == ["a", "b", "c"]
    assert found[0] == ROWS[0]
    assert found[1].why == "no_image"
    assert found[2].written == ["zwei ü"]
    again.remove()
    assert not path.exists()
    again.remove()


def test_one_cut_in_its_first_line_begins_anew(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"se')
    assert Journal(path, {"seed": 1}).count == 0
    assert path.read_text() == '{"seed": 1}\n'


def test_what_was_made_otherwise_is_not_gone_on_with(tmp_path):
    path = tmp_path / "x.jsonl"
    Journal(path, {"seed": 1, "writer": "w"}).add(ROWS)
    with pytest.raises(ConfigError, match=r"it is of another seed\. Delete it to begin anew"):
        Journal(path, {"seed": 2, "writer": "w"})


def test_a_line_that_is_none_is_named(tmp_path):
    path = tmp_path / "x.jsonl"
    journal = Journal(path, {})
    path.write_text('{}\n{"what": 1}\n')
    with pytest.raises(DataError, match=r"line 2, must be what was written about a record"):
        list(journal.lines())
