import io
import struct
import zlib
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from diptych.core.record import Record
from diptych.data.archive import Member
from diptych.data.corpora import corpus as corpora
from diptych.data.corpora.openclipart import Openclipart, OpenclipartConfig
from diptych.data.dataset import Dataset
from diptych.data.pack import PackConfig
from diptych.data.sources.source import Reject
from diptych.data.svg import SvgAbout
from tests.data.fake_clients import FakeClients, deb, link

SVG = """<svg xmlns:rdf="r" xmlns:dc="d" xmlns:cc="c"><metadata><rdf:RDF><cc:Work><dc:title>{title}</dc:title>
<dc:description>{words}</dc:description><dc:subject><rdf:Bag><rdf:li>food</rdf:li><rdf:li>fruit</rdf:li></rdf:Bag>
</dc:subject></cc:Work></rdf:RDF></metadata></svg>"""


def _png(side: int = 32, colour: str = "red") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(out, "PNG")
    return out.getvalue()


def _bomb() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 9999))
        + chunk(b"IEND", b"")
    )


def _serve(clients: FakeClients, patch: pytest.MonkeyPatch) -> None:
    png, svg = "./usr/share/openclipart/png", "./usr/share/openclipart/svg"
    pictures = {
        f"{png}/food/red_apple_01.png": _png(),
        f"{png}/food/plain-pear.png": _png(colour="green"),
        f"{png}/food/bomb_01.png": _bomb(),
        f"{png}/food/laughs.png": _png(colour="blue"),
        f"{png}/food/alone.png": _png(colour="pink"),
        "./usr/share/doc/x.txt": b"",
    }
    laughs = '<!DOCTYPE svg [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>' + SVG.format(title="&b;", words="")
    drawings = {
        f"{svg}/food/red_apple_01.svg": SVG.format(title="Apple", words="A ripe one").encode(),
        f"{svg}/food/plain-pear.svg": SVG.format(title="", words="").encode(),
        f"{svg}/food/bomb_01.svg": SVG.format(title="Bomb", words="").encode(),
        f"{svg}/food/laughs.svg": laughs.encode(),
    }
    packages = (
        clients.serve(
            "apt", "png_1_all.deb", deb(pictures, (link(f"{png}/fruit/red_apple_01.png", "../food/red_apple_01.png"),))
        ),
        clients.serve("apt", "svg_1_all.deb", deb(drawings)),
    )
    patch.setattr(Openclipart, "packages", packages)


def test_captions_in_the_order_of_their_worth(clients: FakeClients, monkeypatch: pytest.MonkeyPatch) -> None:
    _serve(clients, monkeypatch)
    records = {r.key: r for r in OpenclipartConfig().build().records() if isinstance(r, Record)}
    apple = records["food/red_apple_01"]
    assert apple.segments[1].texts == ("Apple", "A ripe one", "red apple", "food, fruit")
    assert apple.segments[1].weights == pytest.approx((0.4, 0.2, 0.2, 0.2))
    assert apple.meta["category"] == "food"
    assert apple.meta["keywords"] == ["food", "fruit"]
    assert records["food/plain-pear"].segments[1].texts == ("plain pear", "food, fruit")


def test_bombs_links_and_laughs_are_named_in_the_dataset(
    clients: FakeClients,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    _serve(clients, monkeypatch)
    packing = PackConfig(val=0.0, jobs=1, tokenizer="none", min_side=16)
    path = corpora.get("openclipart", tmp_path / "out", packing)
    kept = sum(len(s) for s in Dataset.open(path).splits.values())
    rejected = {r["key"]: r for r in pq.read_table(path / "rejected.parquet").to_pylist()}
    assert kept == 2
    assert {k: r["reason"] for k, r in rejected.items()} == {
        "food/bomb_01": "too_many_pixels",
        "food/laughs": "no_metadata",
        "food/alone": "no_metadata",
        "fruit/red_apple_01": "link",
    }
    assert "only short entities" in rejected["food/laughs"]["message"]
    assert rejected["food/bomb_01"]["where"] == "png_1_all.deb: usr/share/openclipart/png/food/bomb_01.png"


def test_pictures_that_look_the_same_share_a_split() -> None:
    source = OpenclipartConfig(val=0.2, test=0.2).build()

    def split(name: str, data: bytes) -> str:
        record = source._record(f"a/{name}", Member(name, data), SvgAbout(title="a title"))
        assert isinstance(record, Record)
        return str(record.meta["split"])

    colours = [f"#{i:02x}80{255 - i:02x}" for i in range(0, 250, 5)]
    small = [split(f"x{i}", _png(32, c)) for i, c in enumerate(colours)]
    large = [split(f"y{i}", _png(64, c)) for i, c in enumerate(colours)]  # other bytes, another name
    assert set(small) == {"train", "val", "test"}
    assert small == large
    assert isinstance(source._record("a/b", Member("b", _png()), ""), Reject)


def test_a_bomb_gets_a_split_too_and_is_left_to_packing() -> None:
    assert OpenclipartConfig().build()._split(_bomb()) == "train"
