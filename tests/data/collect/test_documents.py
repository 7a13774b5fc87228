"""Pages and figures of PDF files that the test writes, and a reason for every one that cannot be had."""

from pathlib import Path
from typing import Any

import pytest

from diptych.core.record import Record
from diptych.data.collect import documents
from diptych.data.collect.collector import collector
from diptych.data.decode import decode_image
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.source import Reject
from tests.data.collect.tiny_pdf import pdf, picture, words

pytest.importorskip("pypdfium2")

PAGE = (
    words(20, 370, "A report on foxes")
    + picture(50, 200, 200, 150)
    + words(50, 185, "Figure 1: A fox in the snow, seen")
    + words(50, 173, "from afar.")
    + words(20, 120, "The text goes on here.")
    + picture(5, 5, 10, 10)
)


def read(path: Path, **settings: Any) -> dict[str, Record | Reject]:
    return {r.key: r for r in collector("documents", str(path), **settings).records()}


def reason(item: Record | Reject) -> str:
    assert isinstance(item, Reject)
    assert item.message.endswith(".")
    assert item.where
    return item.reason


def test_pages_with_their_text_and_figures_with_their_captions(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf([PAGE, words(20, 300, "Second page")]))
    found = read(tmp_path, dpi=72, licence="CC0-1.0")
    assert list(found) == ["a.pdf/page-0001", "a.pdf/page-0001/small", "a.pdf/page-0001/figure-1", "a.pdf/page-0002"]
    page, figure = found["a.pdf/page-0001"], found["a.pdf/page-0001/figure-1"]
    assert isinstance(page, Record)
    assert isinstance(figure, Record)
    assert decode_image(page.segments[0].data).shape == (3, 400, 300)
    assert page.segments[1].texts[0].startswith("A report on foxes\n")
    assert figure.segments[1].texts == ("Figure 1: A fox in the snow, seen from afar.",)
    pixels = decode_image(figure.segments[0].data)
    assert pixels.shape == (3, 150, 200)
    assert pixels[:, :60].float().mean() < 128  # the grey ramp, dark above
    assert figure.meta["collected"] == {
        "collector": "documents",
        "rule": "figure",
        "origin": str(tmp_path / "a.pdf"),
        "place": "page 1",
        "licence": "CC0-1.0",
    }
    assert reason(found["a.pdf/page-0001/small"]) == "figure_too_small"
    assert list(read(tmp_path, take="pages")) == ["a.pdf/page-0001", "a.pdf/page-0002"]
    assert found == read(tmp_path, dpi=72, licence="CC0-1.0")


def test_a_page_is_drawn_no_larger_than_allowed(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf([words(20, 300, "x")], size=(14_000, 7_000)))
    page = read(tmp_path, take="pages", dpi=600, max_side=64, encoding="jpg")["a.pdf/page-0001"]
    assert isinstance(page, Record)
    assert decode_image(page.segments[0].data).shape == (3, 32, 64)


LOCKED = f"/Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <{'5a' * 32}> /U <{'a5' * 32}> >> /ID [<00> <00>]"


def test_what_is_wrong_has_a_reason(tmp_path: Path) -> None:
    good = pdf([PAGE])
    files = {
        "bomb": pdf([PAGE], pixels=(60_000, 60_000)),
        "broken": good[:200],
        "huge": pdf([words(1, 1, "x")], size=(20_000, 20_000)),
        "no": b"<html>not found</html>",
        "reserved": good + b'<rdf:Description tdm:reservation="1"/>',
        "locked": pdf([PAGE], trailer=LOCKED),
        "lonely": pdf([picture(50, 200, 200, 150)]),
        "turned": pdf([PAGE], extra="/Rotate 90"),
    }
    for name, data in files.items():
        (tmp_path / f"{name}.pdf").write_bytes(data)
    found = read(tmp_path, take="figures")
    reasons = {k: reason(v) for k, v in found.items() if not k.endswith("small")}
    assert reasons == {
        "bomb.pdf/page-0001": "too_many_pixels",
        "broken.pdf": "broken_pdf",
        "huge.pdf/page-0001": "bad_page_size",
        "no.pdf": "not_a_pdf",
        "reserved.pdf": "opt_out_tdm_reservation",
        "locked.pdf": "encrypted",
        "lonely.pdf/page-0001/figure-1": "no_caption",
        "turned.pdf/page-0001/figure-1": "turned_page",
    }


def test_limits(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf([PAGE, PAGE, PAGE]))
    found = read(tmp_path, max_pages=1, max_text=10)
    assert [reason(r) for r in found.values()] == ["text_too_long", "too_many_pages"]
    assert reason(read(tmp_path, max_objects=2)["a.pdf/page-0001"]) == "too_many_objects"
    assert reason(read(tmp_path, max_megabytes=0.0001)["a.pdf"]) == "too_many_bytes"


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ("2", {"1": "", "2": "parser_crashed", "3": "", "4": "", "5": ""}),
        ("5", {"1": "", "2": "", "3": "", "4": "", "5": "parser_crashed"}),
        ("1 2 3", {"1": "parser_crashed", "2": "parser_crashed", "3": "parser_crashed", "rest": "parser_crashed"}),
        ("0", {"": "parser_crashed"}),
        ("x", {"1": "parser_crashed", "2": "parser_crashed", "3": "parser_crashed", "rest": "parser_crashed"}),
    ],
)
def test_a_page_that_brings_the_parser_down_is_named_and_the_next_is_read(bad, expected, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(documents, "PARSER", "tests.data.odd_parsers:fragile_pdf")
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7 bad: " + bad.encode())
    (tmp_path / "b.pdf").write_bytes(b"%PDF-1.7 bad: ")
    names = {"": "a.pdf", "rest": "a.pdf/rest"}
    found = read(tmp_path)
    said = {k: "" if isinstance(r, Record) else reason(r) for k, r in found.items() if k.startswith("a")}
    assert said == {names.get(n, f"a.pdf/page-000{n}"): r for n, r in expected.items()}
    assert [k for k in found if k.startswith("b")] == [f"b.pdf/page-000{n}" for n in range(1, 6)]


def test_packed_every_page_is_kept_or_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.pdf").write_bytes(pdf([PAGE, picture(0, 0, 300, 400)]))
    report = pack(
        collector("documents", str(tmp_path / "in"), take="pages", dpi=36),
        tmp_path / "out",
        PackConfig(jobs=1, vocab_size=300),
    )
    assert (report.seen, report.kept, report.reasons) == (2, 1, {"no_caption": 1})
