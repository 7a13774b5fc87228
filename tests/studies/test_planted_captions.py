"""Captions that say nothing: of every kind, always the same for the same key."""

from collections import Counter

from diptych.studies.planted_captions import KINDS, boilerplate


def test_a_caption_is_a_function_of_its_key() -> None:
    found = [boilerplate(0, f"uid{i}") for i in range(200)]
    assert found == [boilerplate(0, f"uid{i}") for i in range(200)]
    assert found != [boilerplate(1, f"uid{i}") for i in range(200)]


def test_every_kind_comes_about_as_often_and_no_template_stays_open() -> None:
    found = [boilerplate(0, i) for i in range(1800)]
    counts = Counter(kind for _, kind in found)
    assert set(counts) == set(KINDS)
    assert min(counts.values()) > 140  # of 200 expected, with a deviation of 13
    assert all(text.strip() == text and text and "{" not in text for text, _ in found)
    assert len({text for text, _ in found}) > 900


def test_kinds_look_like_what_they_are() -> None:
    of = {kind: [t for t, k in (boilerplate(2, i) for i in range(600)) if k == kind] for kind in KINDS}
    assert all("." in t for t in of["file name"])
    assert all("example" in t for t in of["address"])
    assert all(sum(c in "0123456789abcdef" for c in t) >= 20 for t in of["hash"])
    assert all(any(c.isdigit() for c in t) for t in of["camera"] + of["counter"])
