"""Pages become pairs, links and interleaved records; whatever is left out has a reason."""

import base64
import hashlib
import json
import tracemalloc
from pathlib import Path

import pytest

from diptych.core.errors import ConfigError, DataError
from diptych.core.record import Record
from diptych.data.collect.collector import NothingToPack, collector
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.source import Reject
from tests.data.collect import warcs
from tests.data.pictures import png

BIG = {"height": 160, "width": 200}


def collect(path: Path, **settings) -> tuple[list[Record], dict[str, str]]:
    """The records, and {key: reason}; each record or image is one or the other."""
    items = list(collector("html", str(path), **settings).records())
    kept = [i for i in items if isinstance(i, Record)]
    rejected = {i.key: i.reason for i in items if isinstance(i, Reject)}
    assert len({i.key for i in items}) == len(items)
    return kept, rejected


@pytest.fixture
def site(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    (root / "sub" / "p_files").mkdir(parents=True)
    for n in range(3):
        (root / "sub" / "p_files" / f"{n}.png").write_bytes(png(n, **BIG) + b" " * 5000)
    (root / "small.png").write_bytes(png(9))
    code = base64.b64encode(png(7)).decode()
    (root / "sub" / "p.html").write_text(
        "<!-- saved from url=(0022)https://e.org/a/p.html --><title>T</title>"
        '<a rel=license href="https://creativecommons.org/licenses/by/4.0/">CC</a>'
        '<p>Words that stand before it.</p><img src="p_files/0.png" alt="first one">'
        '<figure><img src="p_files/1.png" alt="two"><figcaption>The second one</figcaption></figure>'
        '<img src="../small.png" alt="small one"><img src="../../out.png" alt="outside">'
        '<img src="far.jpg" alt="far away">'
        f'<img src="x.svg" alt="a drawing"><img alt="nothing here">'
        f'<img src="data:image/png;base64,{code}" alt="inside it">'
    )
    (tmp_path / "out.png").write_bytes(png(8))
    return root


def test_laion_on_a_saved_site(site: Path, tmp_path: Path) -> None:
    kept, rejected = collect(site, links=str(tmp_path / "l.jsonl"))
    (only,) = kept
    assert only.key == "sub/p.html#0"
    assert only.segments[1].texts == ("first one",)
    assert only.meta["collected"] == {
        "collector": "html",
        "rule": "laion",
        "origin": str(site / "sub" / "p.html"),
        "place": "image 0",
        "licence": "CC-BY-4.0",
    }
    assert only.meta["page"] == "https://e.org/a/p.html"
    assert {k.partition("#")[2]: v for k, v in rejected.items()} == {
        "1": "caption_too_short",
        "2": "too_few_bytes",
        "3": "leaves_folder",
        "5": "address_refused",
        "6": "no_address",
        "7": "address_refused",
    }
    (link,) = [json.loads(line) for line in (tmp_path / "l.jsonl").read_text().splitlines()]
    assert (link["url"], link["caption"]) == ("https://e.org/a/far.jpg", "far away")
    assert link["uid"] == hashlib.md5(b"far awayhttps://e.org/a/far.jpg").hexdigest()
    assert (link["licence"], link["page"]) == ("CC-BY-4.0", "https://e.org/a/p.html")


def test_other_rules_on_a_saved_site(site: Path) -> None:
    kept, rejected = collect(site, rule="cc2dataset")
    assert [r.segments[1].texts[0] for r in kept] == ["first one", "two", "small one", "inside it"]
    assert kept[-1].segments[0].data == png(7)
    assert rejected["sub/p.html#4"] == "only_a_link"
    kept, rejected = collect(site, rule="figure")
    assert [(r.key, r.segments[1].texts[0]) for r in kept] == [("sub/p.html#1", "The second one")]
    assert rejected["sub/p.html#0"] == "not_in_a_figure"
    kept, _ = collect(site, rule="surrounding")
    assert kept[0].segments[1].texts == ("Words that stand before it.",)


def test_who_asks_not_to_be_used_is_left(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<meta name=robots content='noai, follow'><img src=a.png alt='a dog'>")
    (tmp_path / ".well-known").mkdir()
    (tmp_path / ".well-known" / "tdmrep.json").write_text('[{"location": "/b*", "tdm-reservation": 1}]')
    (tmp_path / "b.html").write_text("<img src=a.png alt='a dog'>")
    (tmp_path / "a.png").write_bytes(png(1))
    kept, rejected = collect(tmp_path, rule="cc2dataset")
    assert not kept
    assert rejected == {"a.html": "opt_out_noai", "b.html": "opt_out_tdm_reservation"}
    assert len(collect(tmp_path, rule="cc2dataset", robots="ignore")[0]) == 2


PROSE = (
    "<p>This is a paragraph about the dog that we saw in the garden, and it was very happy.</p>"
    "<img src=/1.png alt=one><p>Then, as we went on, there was another of them; but it was not so kind to us.</p>"
)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_warc_with_its_own_images(tmp_path: Path, suffix: str) -> None:
    path = warcs.write(
        tmp_path / f"a.warc{suffix}",
        warcs.page("http://e.org/p", PROSE + "<ul><li>left out</ul><p>Read more</p><img src=//f.org/2.png alt=two>"),
        warcs.page("http://e.org/no", PROSE, X_Robots_Tag="noai"),
        warcs.record("response", "http://e.org/404", warcs.answer(b"<p>", status=404)),
        warcs.page("http://e.org/1.png", png(1, **BIG), content_type="image/png"),
        warcs.page("http://e.org/p2", "<p>No image is here, and so it is not a page of ours at all.</p>"),
    )
    kept, rejected = collect(path, rule="interleaved")
    (page,) = kept
    assert [s.modality for s in page.segments] == ["text", "image", "text"]
    assert page.segments[1].data == png(1, **BIG)
    assert page.segments[2].texts[0].startswith("Then, as we went on")
    assert page.meta["dropped_paragraphs"] == {"paragraph_words": 1}
    assert page.meta["collected"]["rule"] == "obelics"
    name = path.name
    assert rejected == {
        f"{name}#0#image1": "only_a_link",
        f"{name}#1": "opt_out_noai",
        f"{name}#2": "http_status",
        f"{name}#4": "page_images",
    }
    links = tmp_path / "l.jsonl"
    assert collect(path, rule="interleaved", links=str(links))[1][f"{name}#0#image1"] == "left_as_link"
    assert json.loads(links.read_text())["url"] == "http://f.org/2.png"
    kept, rejected = collect(path, rule="cc2dataset", own_images=False)
    assert not kept
    assert rejected[f"{name}#0#0"] == "only_a_link"


def test_wats_give_links(tmp_path: Path) -> None:
    links = [
        {"path": "IMG@/src", "url": "a/b.png", "alt": "a picture"},
        {"path": "IMG@/src", "url": "http://f.org/c.png", "alt": ""},
        {"path": "IMG@/src", "url": "ftp://f.org/c.png", "alt": "a file"},
        {"path": "A@/href", "url": "https://creativecommons.org/licenses/by/2.0/"},
        {"path": "AREA@/href", "url": "http://f.org/d.jpg", "alt": "a region"},
        {"path": "IMG@/src", "url": "a/b.png", "alt": "a picture"},
        "odd",
        {"path": "IMG@/src"},
    ]
    path = warcs.write(
        tmp_path / "a.warc.wat.gz".replace(".warc", ""),
        warcs.wat("http://e.org/x/", links, head={"Base": "/base/", "Metas": [{"name": "k", "content": "v"}]}),
        warcs.wat("http://e.org/y/", links, head={"Metas": [{"name": "robots", "content": "noai"}]}),
        warcs.wat("http://e.org/z/", links, headers={"TDM-Reservation": "1"}),
        warcs.wat("http://e.org/odd/", [], head={"Metas": 5, "Link": True, "Base": {}}),
    )
    table = tmp_path / "links.jsonl"
    found: list[Reject] = []
    pages = collector("html", str(path), rule="cc2dataset", links=str(table))
    with pytest.raises(NothingToPack, match=r"Wrote 1 links into .*jsonl. Fetch them: diptych collect urls") as nothing:
        found.extend(pages.records())
    assert pages.next_step() == str(nothing.value)
    row = json.loads(table.read_text())
    assert (row["url"], row["caption"]) == ("http://e.org/base/a/b.png", "a picture")
    _, rejected = collect(path, rule="laion")
    assert list(rejected.values()).count("only_a_link") == 3  # a region too, which is no <img>
    assert rejected["a.wat.gz#1"] == "opt_out_noai"
    assert rejected["a.wat.gz#2"] == "opt_out_tdm_reservation"
    with pytest.raises(ConfigError, match="the rule for WAT files must be laion or cc2dataset"):
        collect(path, rule="figure")


def test_hostile_pages_are_read_or_named(tmp_path: Path) -> None:
    (tmp_path / "a_large.html").write_bytes(b"<img src=a.png alt='a dog'>" * 40_000)
    (tmp_path / "b_deep.html").write_text("<div>" * 30_000 + "<img src=a.png alt='a dog'>")
    (tmp_path / "c_bytes.html").write_bytes(bytes(range(256)) * 40 + b"<img src=a.png alt='\xff\xfe dog'>")
    (tmp_path / "d_etc.html").write_text(
        "<img src=/etc/passwd alt=dog><img src=file:///etc/passwd alt=dog><base href=//[x>"
    )
    (tmp_path / "e.html").symlink_to(tmp_path / "nowhere")
    (tmp_path / "a.png").write_bytes(png(1))
    kept, rejected = collect(tmp_path, rule="cc2dataset", page_bytes=1_000_000)
    assert [r.key for r in kept] == ["b_deep.html#0", "c_bytes.html#0"]
    assert rejected["a_large.html"] == "page_too_large"
    assert rejected["e.html"] == "unreadable"
    assert rejected["d_etc.html#1"] in ("bad_address", "only_a_link")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    def peak(pages: int) -> int:
        path = tmp_path / f"{pages}.warc"
        with open(path, "wb") as file:
            for n in range(pages):
                file.write(warcs.page(f"http://e.org/{n}", f"<p>{'word ' * 500}<img src=/i{n}.png alt='number {n}'>"))
        tracemalloc.start()
        found = sum(isinstance(x, Reject) for x in collector("html", str(path)).records())
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found == pages
        return most

    peak(5)
    assert peak(400) - peak(100) < 300 * 1250  # half of what 300 pages more are; some caches fill


def test_what_is_collected_can_be_packed(site: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    config = PackConfig(val=0, jobs=1, tokenizer="none")
    report = pack(collector("html", str(site), rule="cc2dataset"), out, config)
    assert (report.seen, report.kept) == (8, 4)
    assert report.reasons == {"leaves_folder": 1, "no_address": 1, "only_a_link": 2}
    assert (out / "rejected.parquet").is_file()


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="pages must be there"):
        collector("html", str(tmp_path / "none"))
    with pytest.raises(DataError, match="must hold pages"):
        collect(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match=r"pages must be in .html"):
        collect(tmp_path / "a.txt")
    with pytest.raises(ConfigError, match="a list of words must be a UTF-8 file"):
        collector("html", str(tmp_path), flagged_words=str(tmp_path / "none"))


def test_a_page_of_nothing_but_images_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("html", "page"):
        monkeypatch.setattr(f"diptych.data.collect.{module}.MOST_IMAGES", 3)
    links = [{"path": "IMG@/src", "url": f"https://e.org/{i}.png", "alt": "some words"} for i in range(8)]
    warcs.write(tmp_path / "a.wat", warcs.wat("http://e.org/", links))
    wat = collect(tmp_path / "a.wat")[1]
    assert [r for r in wat.values() if r != "only_a_link"] == ["too_many_images"]
    assert len(wat) == 4
    (tmp_path / "p.html").write_text("".join(f'<img src="data:,{i}" alt="some words">' for i in range(8)))
    kept, rejected = collect(tmp_path / "p.html")
    assert not kept
    assert rejected["p.html#more"] == "too_many_images"
    assert len(rejected) == 4
