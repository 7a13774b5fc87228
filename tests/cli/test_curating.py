"""collect, score and curate on the command line."""

import json

from tests.cli.said import say
from tests.data.curation_pools import packed_pool
from tests.data.pictures import png
from tests.data.web.hostile import says, serving


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


def test_pages_with_links_alone_say_what_to_do_next(capsys, tmp_path) -> None:
    page, links = tmp_path / "p.html", tmp_path / "l.jsonl"
    page.write_text("<img src=https://e.org/a.png alt='a dog'><img src=https://e.org/b.png>")
    how = ("rule=laion", f"links={links}", "limits.min_side=100", "tokenizer=none", "jobs=1")
    code, out, err = say(capsys, "collect", "html", page, *how, "--out", tmp_path / "out")
    assert code == 0
    assert err == f"Nothing was kept. Each of the 1 rejected is named in {tmp_path / 'out.rejected.parquet'}.\n"
    assert (tmp_path / "out.rejected.parquet").is_file()
    assert "No image is here, so nothing was packed (rejected: 1 " in out
    assert f"Wrote 1 links into {links}. Fetch them: diptych collect urls {links}" in out
    assert len(links.read_text().splitlines()) == 1
    assert not (tmp_path / "out").exists()

    (tmp_path / "a.png").write_bytes(png(1))
    page.write_text("<img src=https://e.org/a.png alt='a dog'><img src=a.png alt='a cat'>")
    code, out, _ = say(capsys, "collect", "html", page, "rule=cc2dataset", *how[1:], "--out", tmp_path / "out")
    assert code == 0
    assert out.splitlines()[-1].startswith("Wrote 1 links into")

    for wrong, said in (("limts.min_side=1", "Did you mean 'limits'"), ("limits.min_sid=1", "Did you mean 'min_side'")):
        code, _, err = say(capsys, "collect", "html", page, wrong)
        assert code == 1
        assert said in err
        assert "Traceback" not in err


def test_a_pool_is_curated(capsys, tmp_path) -> None:
    data = packed_pool(tmp_path / "d", [["a red dog"], ["dog"]])
    recipe = tmp_path / "mine.toml"
    recipe.write_text('[[filter]]\nname = "caption_length"\nmin_words = 2\n')
    code, out, _ = say(capsys, "curate", data, recipe, "--out", tmp_path / "chosen", "--jobs", 1)
    assert code == 0
    assert "Kept 1 of 2" in out
    assert json.loads((tmp_path / "chosen" / "curation.json").read_text())["kept"] == 1
    shorter = (data, "--recipe", recipe, "caption_length.min_words=1", "--out", tmp_path / "shorter", "--jobs", 1)
    code, out, _ = say(capsys, "curate", *shorter)
    assert (code, "Kept 2 of 2" in out) == (0, True)
    code, _, err = say(capsys, "curate", data, "datacom:basic", "--out", tmp_path / "other")
    assert code == 1
    assert "a curation must be" in err
    assert "Traceback" not in err


def test_curations_and_their_settings_are_listed(capsys, tmp_path) -> None:
    code, out, _ = say(capsys, "curate")
    assert code == 0
    assert f"{'house:default':28}What to begin with" in out
    assert "caption_length, " in out
    code, out, _ = say(capsys, "curate", "--recipe", "datacomp:basic", "image_size.min_side=100")
    assert code == 0
    assert "image_size.min_side=100" in out.split()
    for given, words in (
        (["curate", "data"], "a curation must be named behind the dataset"),
        (["curate", "data", "house:default"], "the output must be named"),
        (["curate", "data", "house:default", "caption_lenght.min_words=3"], "Did you mean 'caption_length'"),
        (["curate", "data", "house:default", "caption_length.least=3"], "caption_length.least must name a field"),
    ):
        code, _, err = say(capsys, *given)
        assert code == 1
        assert words in err
        assert "Traceback" not in err


def test_faces_are_blurred_at_packing(capsys, tmp_path) -> None:
    for i, name in enumerate("abc"):
        (tmp_path / f"{name}.png").write_bytes(png(i))
    lines = ["image,caption,face_bboxes", 'a.png,a,"[[0, 0, 0.5, 0.5]]"', 'b.png,b,"[]"', 'c.png,c,"[[3, 3, 9, 9]]"']
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    how = ("faces.blur=boxes", "tokenizer=none", "jobs=1", "--val", 0)
    code, out, _ = say(capsys, "pack", tmp_path / "t.csv", *how, "--out", tmp_path / "out")
    assert code == 0
    assert "Of these: 1 faces_blurred, 1 reencoded." in out
    assert "Rejected 1: 1 bad_face_boxes." in out
    code, _, err = say(capsys, "pack", tmp_path / "t.csv", "faces.blurr=boxes", "--out", tmp_path / "x")
    assert code == 1
    assert "Did you mean 'blur'" in err
