"""collect, score and curate on the command line."""

import json

import pytest

from diptych.cli.main import main
from tests.data.curation_pools import packed_pool
from tests.data.pictures import png
from tests.data.web.hostile import says, serving


def say(capsys, *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def test_links_are_collected(capsys, tmp_path) -> None:
    behaviours = {"/a.png": says(png(1)), "/robots.txt": says(b"User-agent: *\nDisallow: /b\n")}
    with serving(behaviours) as (port, _):
        links = tmp_path / "links.csv"
        links.write_text(f"url,caption\nhttp://127.0.0.1:{port}/a.png,a\nhttp://127.0.0.1:{port}/b.png,b\n")
        own = f'web.private_hosts=["127.0.0.1:{port}"]'
        code, out, _ = say(capsys, "collect", "urls", links, own, "--out", tmp_path / "out", "--jobs", 1)
    assert code == 0
    assert "Fetched 1 of 2 links" in out
    assert "1 robots_txt" in out
    code, out, _ = say(capsys, "collect")
    assert "urls" in out.split()


def test_a_pool_is_curated(capsys, tmp_path) -> None:
    data = packed_pool(tmp_path / "d", [["a red dog"], ["dog"]])
    recipe = tmp_path / "mine.toml"
    recipe.write_text('[[filter]]\nname = "caption_length"\nmin_words = 2\n')
    code, out, _ = say(capsys, "curate", data, recipe, "--out", tmp_path / "chosen", "--jobs", 1)
    assert code == 0
    assert "Kept 1 of 2" in out
    assert json.loads((tmp_path / "chosen" / "curation.json").read_text())["kept"] == 1
    code, _, err = say(capsys, "curate", data, "datacom:basic", "--out", tmp_path / "other")
    assert code == 1
    assert "a curation must be" in err
    assert "Traceback" not in err
