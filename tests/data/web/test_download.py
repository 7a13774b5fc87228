"""Links to shards against a hostile server: what is good is kept, all else has its reason, and nothing is lost."""

import csv
import hashlib
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from diptych.core.errors import ConfigError, DiptychError
from diptych.data.dataset import Split
from diptych.data.executors.executor import executor
from diptych.data.face_blur import FaceBlurConfig
from diptych.data.web import download as module
from diptych.data.web.download import DownloadConfig, download
from diptych.data.web.safe_http import WebLimits
from tests.data.pictures import bomb_png, corrupt_png, png
from tests.data.web.hostile import says, serving

GOOD = {f"/img/{i}.png": png(i) for i in range(7)}
BEHAVIOURS = {path: says(data, Content_Type="image/png") for path, data in GOOD.items()} | {
    "/bomb.png": says(bomb_png(), Content_Type="image/png"),
    "/broken.png": says(corrupt_png(1)),
    "/page.png": says(b"<html><body>not an image</body></html>", Content_Type="image/png"),
    "/program.png": says(b"\x7fELF" + b"\0" * 1000, Content_Type="image/png"),
    "/pickle.png": says(b"\x80\x04cos\nsystem\n(S'touch /tmp/x'\ntR."),
}
BAD = {
    "/bomb.png": "too_many_pixels",
    "/broken.png": "",
    "/page.png": "",
    "/program.png": "",
    "/pickle.png": "",
    "/noai": "opt_out_noai",
    "/tdm": "opt_out_tdm_reservation",
    "/private/x.png": "robots_txt",
    "/to-forbidden": "robots_txt",
    "/to-nonsense": "bad_url",
    "/reserved/x.png": "opt_out_tdm_reservation",
    "/to-private": "private_address",
    "/to-file": "scheme",
    "/slow-body": "timeout",
    "/endless-body": "too_many_bytes",
    "/gzip": "encoded_body",
    "/nothing.png": "status_404",
}


def resolve(host: str, port: int) -> list[str]:
    return {"good.example": ["127.0.0.1"]}.get(host, [host])


@pytest.fixture(scope="module")
def server():
    with serving(BEHAVIOURS) as found:
        yield found


def config(port: int, **settings) -> DownloadConfig:
    web = WebLimits(timeout_s=1.0, max_bytes=200_000, private_hosts=frozenset({f"good.example:{port}"}))
    return DownloadConfig(**{"web": web, "piece": 8, "threads": 8, "host_interval": 0.0} | settings)


def table(folder: Path, port: int) -> Path:
    rows = [(f"http://good.example:{port}{path}", f"a picture {path}") for path in [*GOOD, *BAD]]
    rows += [("http://10.0.0.1/x.png", "inside"), ("file:///etc/passwd", "a file"), ("", "nothing")]
    path = folder / "links.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["url", "caption", "license"])
        writer.writerows([*r, "CC0-1.0"] for r in rows)
    return path


@pytest.fixture
def no_delay(monkeypatch):
    monkeypatch.setattr(module.Sites, "delay", lambda *_: 0.0)


def test_what_is_good_is_kept_and_all_else_named(server, tmp_path, no_delay) -> None:
    port, _ = server
    links = table(tmp_path, port)
    report = download(links, tmp_path / "out", executor("pool", 1), config(port), resolve)
    assert (report.links, report.kept) == (27, 7)
    attempts = [r for f in sorted((tmp_path / "out").glob("0*.parquet")) for r in pq.read_table(f).to_pylist()]
    assert len(attempts) == 27
    said = {r["url"].removeprefix(f"http://good.example:{port}"): r for r in attempts}
    for path, reason in BAD.items():
        assert said[path]["status"] == "left"
        assert said[path]["reason"]
        assert said[path]["message"]
        if reason:
            assert said[path]["reason"] == reason, path
    assert said["http://10.0.0.1/x.png"]["reason"] in ("private_address",)
    assert said["file:///etc/passwd"]["reason"] == "scheme"
    assert said[""]["reason"] in ("scheme", "bad_url")
    tars = sorted((tmp_path / "out").glob("*.tar"))
    split = Split.from_tars("train", tars)
    assert len(split) == 7
    for i in range(7):
        record = split.record(i)
        path = record.meta["url"].removeprefix(f"http://good.example:{port}")
        assert split.image_bytes(i) == GOOD[path]
        assert split.captions(i) == (f"a picture {path}",)
        assert record.meta["sha256"] == hashlib.sha256(GOOD[path]).hexdigest()
        assert record.meta["collected"]["licence"] == "CC0-1.0"
    assert "Fetched 7 of 27 links" in str(report)


def test_the_table_says_how_large_a_picture_was_that_was_shrunk(server, tmp_path, no_delay) -> None:
    port, _ = server
    links = tmp_path / "links.csv"
    path = next(iter(GOOD))
    links.write_text(f"url,caption\nhttp://good.example:{port}{path},words\n")
    wide, high = Image.open(io.BytesIO(GOOD[path])).size
    for side, shrunk in ((16, True), (0, False)):
        download(links, tmp_path / str(side), executor("pool", 1), config(port, resize=side), resolve)
        (row,) = pq.read_table(tmp_path / str(side) / "00000.parquet").to_pylist()
        assert (row["original_width"], row["original_height"]) == (wide, high)
        assert ((row["width"], row["height"]) != (wide, high)) == shrunk
    for told, kept in (("abc,5000000000", (None, None)), ("800,600", (800, 600))):
        links.write_text(f"url,caption,original_width,original_height\nhttp://good.example:{port}{path},words,{told}\n")
        download(links, tmp_path / f"told{told[0]}", executor("pool", 1), config(port, resize=16), resolve)
        (row,) = pq.read_table(tmp_path / f"told{told[0]}" / "00000.parquet").to_pylist()
        assert (row["original_width"], row["original_height"]) == kept


def test_it_goes_on_where_it_was_stopped_and_two_processes_give_the_same(server, tmp_path, no_delay) -> None:
    port, asked = server
    links = table(tmp_path, port)
    for name, jobs in (("one", 1), ("two", 2)):
        download(links, tmp_path / name, executor("pool", jobs), config(port), resolve)
    for file in sorted((tmp_path / "one").glob("0*.tar")):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()
    (tmp_path / "one" / "00000.json").unlink()
    (tmp_path / "one" / ".00000.writing").mkdir()
    (tmp_path / "one" / ".00000.writing" / "left").write_text("over")
    del asked[:]
    download(links, tmp_path / "one", executor("pool", 1), config(port), resolve)
    assert sum(path.startswith("/img/") for path in asked) == 7  # the first piece alone
    assert "/slow-body" not in asked
    assert (tmp_path / "one" / "00000.tar").read_bytes() == (tmp_path / "two" / "00000.tar").read_bytes()
    with pytest.raises(ConfigError, match="other settings"):
        download(links, tmp_path / "one", executor("pool", 1), config(port, resize=32), resolve)


def test_a_detector_that_is_not_there_is_missed_before_anything_is_fetched(tmp_path) -> None:
    blurred = config(80, faces=FaceBlurConfig(blur="detect", model=str(tmp_path / "none.onnx")))
    with pytest.raises(DiptychError, match=r"none\.onnx"):
        download(tmp_path / "links.csv", tmp_path / "out", executor("pool", 1), blurred, resolve)
    assert not (tmp_path / "out").exists()


def test_what_a_killed_attempt_had_kept_does_not_outlive_it(tmp_path, no_delay) -> None:
    gone: list[bool] = []

    def behave(sock, port) -> None:
        (says(b"no", "404 Not Found") if gone else says(GOOD["/img/0.png"]))(sock, port)

    out = tmp_path / "out"
    with serving({"/x.png": behave}) as (port, _):
        links = tmp_path / "links.csv"
        links.write_text(f"url,caption\nhttp://good.example:{port}/x.png,a picture\n")
        assert download(links, out, executor("pool", 1), config(port), resolve).kept == 1
        assert (out / "00000.tar").is_file()
        (out / "00000.json").unlink()  # the process was killed just before
        (out / ".00000.json.new-abcd_123").write_text("{")
        gone.append(True)
        assert download(links, out, executor("pool", 1), config(port), resolve).kept == 0
    names = ["00000.json", "00000.parquet", "download.json", "links", "links.json"]
    assert sorted(p.name for p in out.iterdir()) == names


def test_a_hash_that_the_table_brings_must_hold(server, tmp_path, no_delay) -> None:
    port, _ = server
    good = hashlib.sha256(GOOD["/img/0.png"]).hexdigest()
    rows = [("/img/0.png", good), ("/img/1.png", "0" * 64)]
    lines = [json.dumps({"url": f"http://good.example:{port}{p}", "text": "x", "sha256": h}) for p, h in rows]
    (tmp_path / "links.jsonl").write_text("\n".join(lines) + "\n")
    report = download(tmp_path / "links.jsonl", tmp_path / "out", executor("pool", 1), config(port), resolve)
    assert report.kept == 1
    assert report.reasons == {"changed": 1}
