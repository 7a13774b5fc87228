import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from diptych.core.record import Record
from diptych.data.corpora import corpus as corpora
from diptych.data.corpora.stamps import Stamps, StampsConfig, read_sentences
from diptych.data.dataset import Dataset
from diptych.data.pack import PackConfig
from diptych.data.sources.source import Reject
from tests.data.fake_clients import FakeClients, deb, link

APPLE = (
    "A red apple.\n\nde.utf8=Ein roter  Apfel.\nca@valencia.utf8=Una poma\nfr.utf8=A red apple.\nes.utf8=\nxx=broken\n"
)
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="20" height="10"><rect width="20" height="10" fill="red"/></svg>'
BOMB = '<!DOCTYPE svg [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><svg xmlns="http://www.w3.org/2000/svg"><b/>&b;</svg>'


def _png(shade: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (32, 24), (shade, 0, 0)).save(out, "PNG")
    return out.getvalue()


def _serve(clients: FakeClients, patch: pytest.MonkeyPatch) -> None:
    root = "./usr/share/tuxpaint/stamps"
    files = {
        f"{root}/food/fruit/apple.png": _png(1),
        f"{root}/food/fruit/apple.svg": SVG.encode(),
        f"{root}/food/fruit/apple.txt": APPLE.encode(),
        f"{root}/food/fruit/apple.dat": b"noflip",
        f"{root}/food/fruit/apple.ogg": b"OggS crunch",
        f"{root}/food/fruit/apple_desc.ogg": b"OggS red",
        f"{root}/food/fruit/apple_desc_de.ogg": b"OggS rot",
        f"{root}/food/fruit/apple_pt_BR.ogg": b"OggS maca",
        f"{root}/food/fruit/pear_desc.ogg": b"OggS alone",
        f"{root}/food/fruit/apple_mirror.png": _png(2),
        f"{root}/symbols/shapes/line.svg": SVG.encode(),
        f"{root}/symbols/shapes/line.txt": b"A line.",
        f"{root}/symbols/shapes/bomb.svg": BOMB.encode(),
        f"{root}/symbols/shapes/bomb.txt": b"A bomb.",
        f"{root}/odd/thing.png": _png(3),
        f"{root}/odd/thing.txt": b"A thing.",
        "./usr/share/doc/x.txt": b"no",
    }
    archive = deb(files, (link(f"{root}/food/fruit/other.png", "apple.png"),))
    patch.setattr(Stamps, "packages", (clients.serve("apt", "stamps_1_all.deb", archive),))


def test_a_stamp_with_its_sentences_and_recordings(clients: FakeClients, monkeypatch: pytest.MonkeyPatch) -> None:
    _serve(clients, monkeypatch)
    found = {r.key: r for r in StampsConfig().build().records()}
    apple = found["food/fruit/apple"]
    assert isinstance(apple, Record)
    assert apple.segments[0].data == _png(1)
    assert apple.segments[1].texts == ("A red apple.",)
    assert len(apple.segments) == 2
    assert apple.meta["sentences"] == {"en": "A red apple.", "de": "Ein roter Apfel.", "ca@valencia": "Una poma"}
    assert (apple.meta["label"], apple.meta["class_index"], apple.meta["folder"]) == ("food", 2, "food/fruit")
    base = "usr/share/tuxpaint/stamps/food/fruit/apple"
    assert apple.meta["recordings"] == {
        "sound": f"{base}.ogg",
        "en": f"{base}_desc.ogg",
        "de": f"{base}_desc_de.ogg",
        "sound_pt_BR": f"{base}_pt_BR.ogg",
    }
    line = found["symbols/shapes/line"]
    assert isinstance(line, Record)
    with Image.open(io.BytesIO(line.segments[0].data)) as drawn:
        assert drawn.size == (256, 128)
    assert {k: r.reason for k, r in found.items() if isinstance(r, Reject)} == {
        "food/fruit/apple_mirror": "no_sentence",
        "food/fruit/other": "link",
        "odd/thing": "unknown_folder",
        "symbols/shapes/bomb": "svg",
    }


def test_languages_and_sound_on_request(clients: FakeClients, monkeypatch: pytest.MonkeyPatch) -> None:
    _serve(clients, monkeypatch)
    source = StampsConfig(languages=("de", "en"), audio=True).build()
    records = {r.key: r for r in source.records() if isinstance(r, Record)}
    apple = records["food/fruit/apple"]
    assert apple.segments[1].texts == ("Ein roter Apfel.", "A red apple.")
    assert [(s.modality, s.role, s.data) for s in apple.segments[2:]] == [
        ("audio", "sound", b"OggS crunch"),
        ("audio", "speech", b"OggS rot"),
        ("audio", "speech", b"OggS red"),
    ]
    assert records["symbols/shapes/line"].segments[1].texts == ("A line.",)
    german = [r for r in StampsConfig(languages=("de",)).build().records() if isinstance(r, Record)]
    assert [r.key for r in german] == ["food/fruit/apple"]


@pytest.mark.parametrize("audio", [False, True])
def test_it_is_packed_with_its_classes_beside(
    clients: FakeClients, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, audio: bool
) -> None:
    _serve(clients, monkeypatch)
    packing = PackConfig(val=0.0, jobs=1, tokenizer="none")
    path = corpora.get("stamps", tmp_path / "out", packing, val=0.0, test=0.0, audio=audio)
    train = Dataset.open(path).splits["train"]
    assert len(train) == 2
    classes = (path / "classes.txt").read_text().splitlines()
    assert all(classes[train.meta(i)["class_index"]] == train.meta(i)["label"] for i in range(2))
    assert pq.read_table(path / "rejected.parquet").num_rows == 4
    assert sum(s.modality == "audio" for s in train.record(0).segments) == (2 if audio else 0)


def test_splits_go_by_the_picture() -> None:
    source = StampsConfig().build()
    splits = [source._split(_png(i % 250)) for i in range(500)]
    assert splits[:250] == splits[250:]
    assert splits.count("test") / 500 == pytest.approx(0.2, abs=0.06)
    assert {"train", "val", "test"} == set(splits)


def test_texts_that_say_nothing() -> None:
    assert read_sentences(b"\n \n") == {}
    assert read_sentences(b"\xff\n")["en"] == "\ufffd"
