from diptych.core.record import Record, Segment


def test_a_uid_is_the_content_not_the_name():
    a = Record.pair("a", b"img", "png", ("one", "two"))
    assert a.uid == Record.pair("b", b"img", "png", ("one", "two"), meta={"x": 1}).uid
    assert a.uid != Record.pair("a", b"img", "png", ("two", "one")).uid
    assert a.uid != Record.pair("a", b"img2", "png", ("one", "two")).uid
    assert len(a.uid) == 32


def test_wrong_captions_are_content():
    plain = Record.pair("a", b"img", "png", ("one",))
    asked = [
        Record.pair("a", b"img", "png", ("one",), meta={"test": test, "distractors": wrong})
        for test, wrong in (("swap", ["two"]), ("swap", ["three"]), ("add", ["two"]))
    ]
    assert len({r.uid for r in (plain, *asked)}) == 4
    assert asked[0].uid == Record.pair("b", b"img", "png", ("one",), meta={**asked[0].meta, "x": 1}).uid


def test_joined_texts_do_not_collide():
    assert Record("k", (Segment("text", ("a", "b"), "txt"),)).uid != Record("k", (Segment("text", ("ab",), "txt"),)).uid


def test_segments_are_found_by_modality():
    record = Record.pair("a", b"img", "png", ("one",))
    assert record.first("image").data == b"img"
    assert record.first("text").texts == ("one",)
    assert record.first("audio") is None
