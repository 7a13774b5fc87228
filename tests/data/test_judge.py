"""Verdicts on single records."""

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from diptych.core.record import Record, Segment
from diptych.data.decode import BadImage, decode_image, probe
from diptych.data.face_blur import FaceBlurConfig, blur_faces
from diptych.data.face_boxes import FaceBox
from diptych.data.judge import Kept, Limits, clean_text, clean_texts, judge
from diptych.data.sources.source import Reject
from tests.data import tiny_pages
from tests.data.pictures import BROKEN, animated, encode, jpg, pixels, png


def verdict(image: bytes, limits: Limits | None = None, captions: tuple[str, ...] = ("words",)) -> Kept | Reject:
    return judge(Record.pair("k", image, "jpg", captions), limits or Limits())


def kept(image: bytes, limits: Limits | None = None) -> Kept:
    got = verdict(image, limits)
    assert isinstance(got, Kept), got
    return got


@pytest.mark.parametrize("kind", BROKEN)
def test_every_kind_of_broken_image_has_its_reason(kind: str) -> None:
    reason, make = BROKEN[kind]
    data = make(1)
    got = verdict(data)
    assert isinstance(got, Reject)
    assert (got.key, got.reason, got.size) == ("k", reason, len(data))
    assert got.message.endswith(".")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_stored_formats_keep_their_bytes(format: str) -> None:
    data = encode(pixels(1), format)
    got = kept(data)
    assert got.record.segments[0].data == data
    assert got.record.segments[0].format == {"JPEG": "jpg"}.get(format, format.lower())
    assert (got.sizes, got.notes) == (((32, 24),), ())
    assert got.uid == got.record.uid


@pytest.mark.parametrize(
    "data", [encode(pixels(1), "BMP"), encode(pixels(1), "TIFF"), animated("WEBP"), animated("PNG")]
)
def test_other_formats_and_animations_become_png(data: bytes) -> None:
    got = kept(data)
    image = got.record.segments[0]
    assert image.format == "png"
    assert "reencoded" in got.notes
    assert ("animated" in got.notes) == (probe(data).frames > 1)
    assert (decode_image(image.data) == decode_image(data)).all()
    assert probe(image.data).frames == 1


def test_resize_shrinks_once_and_turns_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = encode(pixels(1, height=60, width=100), "JPEG", exif=exif.tobytes())
    got = kept(photo, Limits(resize=50))
    assert got.sizes == ((30, 50),)
    assert got.notes == ("resized", "reencoded")
    again = Image.open(io.BytesIO(got.record.segments[0].data))
    assert (again.format, again.size, again.getexif().get(0x0112, 1)) == ("JPEG", (30, 50), 1)
    small = jpg(1)
    assert kept(small, Limits(resize=50)).record.segments[0].data == small
    assert kept(png(1, height=60, width=100), Limits(resize=50)).record.segments[0].format == "png"


def test_the_first_images_size_before_it_was_shrunk_is_kept() -> None:
    large = png(1, height=60, width=100)
    assert kept(large, Limits(resize=50)).record.meta == {"original_width": 100, "original_height": 60}
    assert kept(large).record.meta == {}
    pair = Record.pair("k", large, "png", ("words",), meta={"original_width": 900, "original_height": 540})
    got = judge(pair, Limits(resize=50))
    assert isinstance(got, Kept)
    assert got.record.meta == pair.meta  # it was shrunk before it came here
    page = Record("k", (*Record.pair("k", png(1), "png", ("words",)).segments, Segment("image", large, "png", "image")))
    got = judge(page, Limits(resize=50))
    assert isinstance(got, Kept)
    assert (got.record.meta, got.notes) == ({}, ("resized", "reencoded"))


def test_faces_of_the_meta_are_blurred_in_what_is_stored() -> None:
    meta = {"face_bboxes": [[0.25, 0.25, 0.5, 0.5]], "artist": "x"}
    limits = Limits(faces=FaceBlurConfig(blur="boxes", margin=0.0))
    grey = np.repeat(pixels(1, 64, 96)[:, :, :1], 3, 2)  # a JPEG's colours are coarse
    for data in (encode(grey, "PNG"), encode(grey, "JPEG", quality=95), encode(grey, "WEBP")):
        got = judge(Record.pair("k", data, "", ("words",), meta=meta), limits)
        assert isinstance(got, Kept)
        image = got.record.segments[0]
        assert image.format == ("png" if data[1:4] == b"PNG" else "jpg")
        assert got.notes == ("faces_blurred", "reencoded")
        assert got.record.meta == {
            **meta,
            "faces_blurred": 1,
            "original_sha256": hashlib.sha256(data).hexdigest(),
        }
        found, given = decode_image(image.data).int(), decode_image(data).int()
        wanted = blur_faces(given.byte(), (FaceBox(0.25, 0.25, 0.5, 0.5),), 0.0).int()
        assert (found - wanted).abs().max() <= (0 if image.format == "png" else 6)
        found[:, 16:32, 24:48] = given[:, 16:32, 24:48]
        assert (found - given).abs().max() <= (0 if image.format == "png" else 6)


def test_pictures_without_faces_keep_their_bytes_and_boxes_that_cannot_be_meant_are_refused() -> None:
    limits = Limits(faces=FaceBlurConfig(blur="boxes"))
    for meta, notes in (({"face_bboxes": []}, ()), ({}, ("without_face_boxes",))):
        got = judge(Record.pair("k", png(1), "png", ("words",), meta=meta), limits)
        assert isinstance(got, Kept)
        assert (got.record.segments[0].data, got.notes, got.record.meta) == (png(1), notes, meta)
    strict = Limits(faces=FaceBlurConfig(blur="boxes", without="reject"))
    got = judge(Record.pair("k", png(1), "png", ("words",)), strict)
    assert isinstance(got, Reject)
    assert got.reason == "no_face_boxes"
    wrong = Record.pair("k", png(1), "png", ("words",), meta={"face_bboxes": [[10, 10, 20, 20]]})
    got = judge(wrong, limits)
    assert isinstance(got, Reject)
    assert got.reason == "bad_face_boxes"
    assert isinstance(judge(wrong, Limits()), Kept)


def test_faces_that_are_found_are_blurred_in_every_image(monkeypatch) -> None:
    monkeypatch.setattr("diptych.data.face_blur.find_faces", lambda image, *_: (FaceBox(0.0, 0.0, 0.5, 1.0),))
    first, second = png(1, height=60, width=100), png(2)
    page = Record("k", (*Record.pair("k", first, "png", ("words",)).segments, Segment("image", second, "png", "image")))
    got = judge(page, Limits(resize=50, faces=FaceBlurConfig(blur="detect")))
    assert isinstance(got, Kept)
    assert got.record.meta == {
        "faces_blurred": 2,
        "face_bboxes": [[0.0, 0.0, 0.5, 1.0]],
        "original_sha256": hashlib.sha256(first).hexdigest(),
        "original_width": 100,
        "original_height": 60,
    }
    assert got.sizes == ((50, 30), (32, 24))
    assert got.record.segments[2].data != second


def test_limits_of_size() -> None:
    for limits, reason in (
        (Limits(min_side=25), "too_small"),
        (Limits(max_side=31), "too_large"),
        (Limits(max_aspect=1.2), "too_narrow"),
        (Limits(max_pixels=700), "too_many_pixels"),
        (Limits(max_bytes=20), "too_many_bytes"),
    ):
        got = verdict(png(1), limits)
        assert isinstance(got, Reject)
        assert got.reason == reason
    kept(png(1), Limits(min_side=24, max_side=32, max_aspect=1.4, max_pixels=768))


def test_captions_are_cleaned_and_no_more() -> None:
    text = Segment(
        "text", (" A  Dog ", "", "cafe\u0301", "A  Dog", "\0"), "txt", "caption", weights=(1.0, 5.0, 2.0, 3.0, 1.0)
    )
    got = clean_text(text)
    assert got is not None
    assert got.texts == ("A  Dog", "caf\u00e9")
    assert got.weights == (4, 2)


def test_texts_that_are_drawn_together_stay_in_step() -> None:
    questions = Segment("text", ("Q1", " Q2", "Q1", "Q3", "Q1 "), "txt", "question", loss=False)
    answers = Segment("text", ("A", "A", "B", "", "A"), "txt", "answer", weights=(1.0, 2.0, 3.0, 4.0, 5.0))
    other = Segment("text", ("x", "x"), "txt", "caption")
    got = clean_texts((questions, answers, other))
    assert [s.texts for s in got] == [("Q1", "Q2", "Q1"), ("A", "A", "B"), ("x",)]
    assert got[1].weights == (6, 2, 3)
    assert got[0].role == "question"
    empty = Segment("text", ("", ""), "txt", "answer")
    assert clean_texts((Segment("text", ("a", "b"), "txt", "question"), empty)) == []


def test_texts_alone_and_pages_are_kept() -> None:
    for record in tiny_pages.RECORDS:
        got = judge(record, Limits())
        assert isinstance(got, Kept)
        assert got.record == record
        assert len(got.sizes) == sum(s.modality == "image" for s in record.segments)
    broken = Record("k", (*tiny_pages.page(1).segments, Segment("image", b"junk", "png", "image")))
    got = judge(broken, Limits())
    assert isinstance(got, Reject)
    assert got.reason == "not_an_image"


@pytest.mark.parametrize(
    ("segment", "reason"),
    [
        (Segment("text", ("", "  "), "txt", "caption"), "no_caption"),
        (Segment("text", ("a\udcff",), "txt", "caption"), "bad_text"),
        (Segment("text", ("a", "b"), "txt", "caption", weights=(1.0,)), "bad_weights"),
        (Segment("text", ("a",), "txt", "caption", weights=(-1.0,)), "bad_weights"),
        (Segment("text", ("a",), "txt", "caption", weights=(float("nan"),)), "bad_weights"),
        (Segment("text", ("a",), "txt", "caption", weights=(0.0,)), "bad_weights"),
    ],
)
def test_captions_that_cannot_be(segment: Segment, reason: str) -> None:
    got = judge(Record("k", (Segment("image", png(), "png", "image"), segment)), Limits())
    assert isinstance(got, Reject)
    assert got.reason == reason


def test_images_without_captions_only_where_asked_for() -> None:
    lone = Record("k", (Segment("image", png(), "png", "image"),))
    got = judge(lone, Limits())
    assert isinstance(got, Reject)
    assert got.reason == "no_caption"
    assert isinstance(judge(lone, Limits(), images_only=True), Kept)
    empty = judge(Record("k", ()), Limits(), images_only=True)
    assert isinstance(empty, Reject)
    assert empty.reason == "empty_record"


def test_meta_must_be_plain() -> None:
    for value in ({1, 2}, float("nan"), b"x"):
        got = judge(Record.pair("k", png(), "png", ("a",), meta={"v": value}), Limits())
        assert isinstance(got, Reject)
        assert got.reason == "bad_meta"


def test_clips_are_known_by_their_first_bytes() -> None:
    def clip(data: bytes, format: str, modality: str = "audio") -> Kept | Reject:
        text = Segment("text", ("a",), "txt", "caption")
        return judge(Record("k", (Segment(modality, data, format, modality), text)), Limits())  # type: ignore[arg-type]

    assert isinstance(clip(b"OggS....", "ogg"), Kept)
    assert isinstance(clip(b"RIFF....WAVE", "wav"), Kept)
    assert isinstance(clip(b"\0\0\0\0ftyp", "mp4", "video"), Kept)
    for bad in (clip(b"MZ", "ogg"), clip(b"OggS", "mp4", "video"), clip(b"OggS", "mp4"), clip(b"x", "exe")):
        assert isinstance(bad, Reject)
        assert bad.reason.startswith("not_")


def test_what_is_no_unicode_is_refused_or_escaped() -> None:
    got = judge(Record.pair("k", png(), "png", ("a",), meta={"note": "caf\udce9"}), Limits())
    assert isinstance(got, Reject)
    assert (got.reason, "'note'" in got.message, "encoding" in got.message) == ("bad_text", True, True)
    good = judge(Record.pair("caf\udce9", png(), "png", ("a",)), Limits())
    assert isinstance(good, Kept)
    assert good.record.key == r"caf\udce9"


def test_nothing_is_stored_that_cannot_be_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diptych.data.judge.MAX_PIXELS", 700)
    large = Limits(max_pixels=10_000)
    for data in (png(1), encode(pixels(1), "BMP")):
        got = verdict(data, large)
        assert isinstance(got, Reject)
        assert (got.reason, "resize" in got.message) == ("too_large_to_store", True)
    kept(png(1), Limits(max_pixels=10_000, resize=20))


@pytest.mark.parametrize("mode,options", [("RGB", {}), ("RGB", {"progressive": True}), ("L", {}), ("CMYK", {})])
def test_a_jpeg_that_is_checked_at_an_eighth_is_refused_where_all_of_it_is(mode: str, options: dict) -> None:
    """No pixel of what is stored as it came is needed: all bytes are read all the same, and the same damage is seen."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:60, :80]
    pixels = np.stack([3 * x, 4 * y, x * y % 255], -1) + rng.normal(0, 20, (60, 80, 3))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode).save(buffer, "JPEG", quality=85, **options)
    whole = buffer.getvalue()

    def reason(data: bytes, at_least: int) -> str:
        try:
            decode_image(data, at_least=at_least)
        except BadImage as error:
            return error.reason
        return ""

    refused = 0
    for turn in range(150):
        data, place = bytearray(whole), int(rng.integers(2, len(whole)))
        if turn % 3 == 0:
            del data[place:]
        elif turn % 3 == 1:
            data[place] ^= int(rng.integers(1, 256))
        else:
            del data[place : place + 20]
        assert reason(bytes(data), 1) == reason(bytes(data), 0)
        refused += bool(reason(bytes(data), 1))
    assert 10 < refused < 140
