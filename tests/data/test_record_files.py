"""Records as files and back, ours and other people's."""

import json

import pytest

from diptych.core.errors import DataError
from diptych.core.record import Record, Segment
from diptych.data.record_files import (
    files_of_record,
    is_read,
    member_key,
    record_from_files,
    sidecar_pieces,
    split_name,
    synthetic_of,
)
from tests.data.pictures import png

MIXED = Record(
    "page.1",
    (
        Segment("text", ("what?",), "txt", "question", loss=False),
        Segment("image", b"one", "png", "image"),
        Segment("image", b"two", "webp", "image"),
        Segment("audio", b"OggS", "ogg", "audio"),
        Segment("text", ("that", "this"), "txt", "answer", weights=(0.25, 0.75)),
        Segment("video", b"ftyp", "mp4", "video", loss=False),
    ),
    {"source": None, "n": [1, 2]},
)


@pytest.mark.parametrize(
    "record",
    [
        Record.pair("a", b"x", "jpg", ("one", "zwei ü")),
        Record.pair("a/b.c", b"x", "png", ("one", "two"), (0.9, 0.1), {"label": 3}),
        Record("lone", (Segment("image", b"x", "webp", "image"),)),
        Record("mute", (Segment("image", b"x", "webp", "image", loss=False),)),
        Record("words", (Segment("text", ("only",), "txt", "caption"),)),
        Record("clip", (Segment("audio", b"x", "flac", "audio"), Segment("text", ("a sound",), "txt", "caption"))),
        MIXED,
    ],
)
def test_there_and_back(record: Record) -> None:
    key = member_key(record.key)
    files = {suffix: data for suffix, data, _ in files_of_record(record, key)}
    assert record_from_files(key, files, "here") == record


def test_names_of_members() -> None:
    record = Record.pair("k", b"x", "jpg", ("one",))
    assert [s for s, _, _ in files_of_record(record, "k")] == ["jpg", "txt", "json"]
    assert [s for s, _, _ in files_of_record(MIXED, "k")] == ["0.png", "1.webp", "2.ogg", "3.mp4", "txt", "json"]
    assert split_name("./a.b/c.seg.PNG") == ("a.b/c", "seg.png")
    assert is_read("0.flac")
    assert not is_read("pkl")
    assert not is_read("pyd")


def test_keys_are_safe_and_stay_different() -> None:
    assert member_key("a/b-c_1") == "a/b-c_1"
    odd = [
        "a.b",
        "a_b",
        "a b",
        "ä",
        "../x",
        "/x",
        "x",
        "",
        ".",
        "a" * 300,
        "a" * 301,
        "__x__",
        "a//b",
        "a/b",
        "a/__b",
        "\udcff",
    ]
    keys = [member_key(k) for k in odd]
    assert len(set(keys)) == len(odd)
    for key in keys:
        assert not key.startswith(("/", "__"))
        assert "." not in key
        assert 0 < len(key) < 100
        key.encode("ascii")


def test_an_img2dataset_sample() -> None:
    side = b'{"url": "http://x", "caption": "a dog", "key": "000", "status": "success", "exif": null}'
    got = record_from_files("000", {"jpg": b"x", "txt": b"a dog", "json": side}, "t")
    assert got.first("text").texts == ("a dog",)  # type: ignore[union-attr]
    assert got.meta["url"] == "http://x"
    assert record_from_files("000", {"jpg": b"x", "json": side}, "t").first("text").texts == ("a dog",)  # type: ignore[union-attr]
    masked = record_from_files("k", {"jpg": b"x", "seg.png": b"y", "txt": b"z"}, "t")
    assert [s.payload for s in masked.segments] == [b"x", ("z",)]


@pytest.mark.parametrize(
    "side",
    [
        b"[1]",
        b"{",
        b'{"segments": [{"modality": "image", "member": "gone.jpg"}]}',
        b'{"segments": [3]}',
        b"[" * 100_000,
    ],
)
def test_damaged_json_is_named(side: bytes) -> None:
    with pytest.raises(DataError, match="here#k"):
        record_from_files("k", {"jpg": png(), "json": side}, "here")


def test_only_stored_formats_are_written() -> None:
    with pytest.raises(DataError, match="Convert it first"):
        list(files_of_record(Record.pair("k", b"x", "gif", ("one",)), "k"))


def test_pieces_tell_what_a_record_says_and_where_its_images_stand() -> None:
    files = {suffix: data for suffix, data, _ in files_of_record(MIXED, "page_1")}
    side = json.loads(files["json"])
    pieces = sidecar_pieces(side, files["txt"].decode(), "t#page_1")
    assert pieces.images == (1, 1)
    assert [(w.texts, w.weights, w.role, w.loss) for w in pieces.texts] == [
        (("what?",), None, "question", False),
        (("that", "this"), (0.25, 0.75), "answer", True),
    ]
    assert (pieces.alternatives, pieces.weights) == (2, (0.25, 0.75))
    pair = {s: d for s, d, _ in files_of_record(Record.pair("a", b"x", "jpg", ("one", "two"), (0.5, 0.5)), "a")}
    pieces = sidecar_pieces(json.loads(pair["json"]), "one", "t#a")
    assert (pieces.images, pieces.alternatives, pieces.texts[0].loss) == ((0,), 2, True)
    assert sidecar_pieces({"width": 3}, "a foreign caption", "t#a").texts[0].texts == ("a foreign caption",)
    assert sidecar_pieces({}, None, "t#a") == ((), (0,))
    with pytest.raises(DataError, match=r"t#a.json must list segments"):
        sidecar_pieces({"segments": [{"texts": ["x"]}]}, None, "t#a")


def test_how_many_captions_a_model_wrote() -> None:
    assert [synthetic_of(meta, 3) for meta in ({"synthetic": 2}, {"synthetic": 9}, {"synthetic": -1})] == [2, 3, 0]
    assert [synthetic_of(meta, 3) for meta in ({}, {"synthetic": "many"}, {"synthetic": True})] == [0, 0, 0]
