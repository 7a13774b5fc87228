"""WARC files as warcio reads them, within limits, and no further than they are whole."""

import gzip
import io
import tracemalloc
import zlib
from pathlib import Path

import pytest

from diptych.core.errors import DataError
from diptych.data.collect import warc
from diptych.data.collect.warc import BadRecord, WarcRecord, read_record, warc_records, wat_metadata
from tests.data.collect import warcs

MOST = 1 << 20


def read(path: Path, most: int = MOST) -> list[WarcRecord]:
    return list(warc_records(path, most))


@pytest.mark.parametrize("gzipped", [True, False])
def test_what_warcio_writes(tmp_path: Path, gzipped: bool) -> None:
    warcio = pytest.importorskip("warcio")
    path = tmp_path / f"a.warc{'.gz' if gzipped else ''}"
    bodies = [b"<p>%d" % n + b"x" * (70_000 * n) for n in range(4)]
    with open(path, "wb") as file:
        writer = warcio.WARCWriter(file, gzip=gzipped)
        writer.write_record(writer.create_warcinfo_record("a", {"software": "x"}))
        for n, body in enumerate(bodies):
            headers = warcio.StatusAndHeaders("200 OK", [("Content-Type", "text/html; charset=utf-8")], "HTTP/1.0")
            writer.write_record(
                writer.create_warc_record(f"http://e.org/{n}", "response", io.BytesIO(body), http_headers=headers)
            )
    found = read(path)
    assert [r.body for r in found] == bodies
    assert [r.address for r in found] == [f"http://e.org/{n}" for n in range(4)]
    assert {(r.status, r.content_type, r.charset) for r in found} == {(200, "text/html", "utf-8")}
    assert [r.number for r in found] == [1, 2, 3, 4]
    for record in reversed(found):
        assert read_record(path, record.offset, MOST).body == record.body


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_where_records_begin_is_known_wherever_the_file_is_cut(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = [warcs.page(f"http://e.org/{n}", "x" * n) for n in range(3)]
    path = warcs.write(tmp_path / f"a.warc{suffix}", *pages)
    sizes = [len(gzip.compress(p)) if suffix else len(p) for p in pages]
    for chunk in (1, 7, *range(sizes[0] - 9, sizes[0] + 3), len(pages[0])):  # also within what ends a member
        monkeypatch.setattr(warc, "CHUNK", chunk)
        assert [r.offset for r in read(path)] == [0, sizes[0], sizes[0] + sizes[1]], chunk
        assert [read_record(path, r.offset, MOST).body for r in read(path)] == [b"", b"x", b"xx"]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_too_large_records_are_passed_over(tmp_path: Path, suffix: str) -> None:
    path = warcs.write(
        tmp_path / f"a.warc{suffix}",
        warcs.page("http://e.org/1", b"x" * 3 * MOST),
        warcs.record("request", "http://e.org", b"y" * 3 * MOST),
        warcs.page("http://e.org/2", "ok"),
    )
    assert [(r.bad.reason if r.bad else "", r.body) for r in read(path)] == [("too_many_bytes", b""), ("", b"ok")]


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    path = warcs.write(
        tmp_path / "a.warc.gz",
        warcs.record("response", "http://e.org", b"\0" * (24 << 20)),
        warcs.page("http://e.org", "ok"),
    )
    tracemalloc.start()
    found = read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [r.bad.reason if r.bad else "" for r in found] == ["too_many_bytes", ""]
    assert peak < 8 << 20
    packed = zlib.compress(b"<p>" + b" " * (8 << 20))
    bomb = warcs.record("response", "http://e.org", warcs.answer(packed, content_encoding="deflate"))
    (only,) = read(warcs.write(tmp_path / "b.warc", bomb))
    assert only.bad is not None
    assert only.bad.reason == "too_many_bytes"


def test_encodings_of_bodies(tmp_path: Path) -> None:
    chunked = b"4\r\n<p>a\r\n3;x=y\r\nbcd\r\n0\r\n\r\n"
    cases = (
        (chunked, {"transfer_encoding": "chunked"}, b"<p>abcd"),
        (b"<p>not chunked", {"transfer_encoding": "chunked"}, b"<p>not chunked"),
        (gzip.compress(b"<p>z"), {"content_encoding": "gzip"}, b"<p>z"),
        (b"<p>plain", {"content_encoding": "gzip"}, b"<p>plain"),
        (zlib.compress(b"<p>z"), {"content_encoding": "deflate"}, b"<p>z"),
        (zlib.compress(b"<p>z")[2:-4], {"content_encoding": "deflate"}, b"<p>z"),
        (b"<p>br taken off", {"content_encoding": "br"}, b"<p>br taken off"),
        (b"\x0b\x02", {"content_encoding": "br"}, "encoded_body"),
        (b"\x1f\x8bxx", {"content_encoding": "gzip"}, "corrupt"),
    )
    for n, (body, headers, wanted) in enumerate(cases):
        path = warcs.write(tmp_path / f"{n}.warc", warcs.record("response", "u", warcs.answer(body, **headers)))
        (found,) = read(path)
        assert (found.bad.reason if found.bad else found.body) == wanted, n


def test_what_is_broken_is_named(tmp_path: Path) -> None:
    good = warcs.page("http://e.org", "ok")
    cases = (
        (b"no warc at all\n", "not_a_record"),
        (good + warcs.record("response", "u", b"abc", size=500), "truncated"),
        (good.replace(b"Content-Length: ", b"Content-Length: -"), "bad_header"),
        (good.replace(b"Content-Length: ", b"Content-Length: 99999999999999999"), "bad_header"),
        (b"WARC/1.0\r\n" + b"A: b\r\n" * 20_000, "bad_header"),
        (b"WARC/1.0\r\n" + b"A" * 50_000, "bad_header"),
        (warcs.record("response", "u", b"HTTP/1.1 200 OK\r\nno end of it"), "bad_header"),
        (gzip.compress(good)[:-20], "truncated"),
        (gzip.compress(good)[:-8] + b"x" * 8, "corrupt"),
        (b"\x1f\x8b" + b"x" * 500, "corrupt"),
    )
    for n, (raw, reason) in enumerate(cases):
        path = tmp_path / f"{n}.warc"
        path.write_bytes(raw)
        found = [r.bad.reason for r in read(path) if r.bad]
        assert found == [reason], n
    assert read(warcs.write(tmp_path / "empty.warc")) == []
    with pytest.raises(DataError, match="must be readable"):
        read(tmp_path / "none.warc")
    with pytest.raises(BadRecord, match="the file ends before"):
        read_record(tmp_path / "empty.warc", 100, MOST)


def test_wats(tmp_path: Path) -> None:
    links = [{"path": "IMG@/src", "url": "/a.png", "alt": "a"}]
    path = warcs.write(tmp_path / "a.wat.gz", warcs.wat("http://e.org/", links), warcs.record("metadata", "u", b"{}"))
    first, second = read(path)
    assert wat_metadata(first)["HTML-Metadata"]["Links"] == links
    assert wat_metadata(first)["address"] == "http://e.org/"
    assert wat_metadata(second) == {}
    for raw in (b"{", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"):
        with pytest.raises(BadRecord):
            wat_metadata(WarcRecord(0, body=raw))
