"""combine, card and diff on the command line."""

import json

from tests.cli.said import say
from tests.data.curation_pools import packed_pool


def test_a_set_is_composed_looked_at_and_compared(capsys, tmp_path) -> None:
    data = packed_pool(tmp_path / "d", [["a red dog"], ["dog"], ["a blue car"], ["a tree"]])
    recipe = tmp_path / "mine.toml"
    recipe.write_text('[[filter]]\nname = "caption_length"\nmin_words = 3\n')
    assert say(capsys, "curate", data, recipe, "--out", tmp_path / "a", "--jobs", 1)[0] == 0
    code, out, _ = say(capsys, "combine", "all", "of", data, "minus", tmp_path / "a", "--out", tmp_path / "rest")
    assert code == 0
    assert "Selected 2 records" in out
    code, _, err = say(capsys, "combine", tmp_path / "a", "plus", tmp_path / "a", "--out", tmp_path / "x")
    assert code == 1
    assert "must go on with and, or" in err
    assert "Traceback" not in err

    page = tmp_path / "card.html"
    code, out, _ = say(capsys, "card", data, "examples=2", "--curation", tmp_path / "a", "--out", page)
    assert code == 0
    assert "2 short_caption" in out
    assert "short_caption" in page.read_text()
    code, out, _ = say(capsys, "card", data, "--json")
    assert json.loads(out)["summary"]["kept"] == 4

    code, out, _ = say(capsys, "diff", data, tmp_path / "a")
    assert code == 0
    assert "2 B: caption_length: short_caption" in out
    code, out, _ = say(capsys, "diff", data, tmp_path / "rest", "--json")
    assert json.loads(out)["both"] == 2
    code, _, err = say(capsys, "diff", data, tmp_path / "none")
    assert code == 1
    assert "is not there" in err
