from diptych.core.record import Record, Segment


def test_a_uid_is_the_content_not_the_name():
    a = Record.pair("a", b"img", "png", ("one", "two"))
    assert a.uid == Record.pair("b", b"img", "png", ("one", "two"), meta={"x": 1}).uid
    assert a.uid != Record.pair("a", b"img", "png", ("two", "one")).uid
    assert a.uid != Record.pair("a", b"img2", "png", ("one", "two")).uid
    assert len(a.uid) == 32


def test_joined_texts_do_not_collide():
    assert Record("k", (Segment("text", ("a", "b"), "txt"),)).uid != Record("k", (Segment("text", ("ab",), "txt"),)).uid


def test_segments_are_found_by_modality():
    record = Record.pair("a", b"img", "png", ("one",))
    assert record.first("image").data == b"img"
    assert record.first("text").texts == ("one",)
    assert record.first("audio") is None
