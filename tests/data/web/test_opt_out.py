"""Who asks not to be used is heard, in each way of asking."""

import json
import time

import pytest

from diptych.data.web.opt_out import REFUSING, Reservations, check_headers, check_meta, robots_directives
from diptych.data.web.refused import Refused


@pytest.mark.parametrize(
    "value, refuses",
    [
        ("noai", True),
        ("NoAI", True),
        ("noindex, unavailable_after: 25 Jun 2030 15:00:00 PST", True),
        ("unavailable_after: 25 Jun 2030 15:00:00 PST, noai", True),
        ("none", True),
        ("noml", True),
        ("diptych: noai", True),
        ("Diptych: noai", True),
        ("max-snippet: 10, noimageai", True),
        ("otherbot: noai", False),
        ("otherbot: noai, noindex", False),
        ("otherbot: noai\nnoindex", True),
        ("all", False),
        ("nosnippet, max-image-preview: large", False),
        ("", False),
    ],
)
def test_x_robots_tag(value: str, refuses: bool) -> None:
    assert bool(robots_directives(value) & REFUSING) == refuses
    if refuses:
        with pytest.raises(Refused, match="asks not to be used"):
            check_headers({"x-robots-tag": value})
    else:
        check_headers({"x-robots-tag": value})


def test_tdm_reservation() -> None:
    with pytest.raises(Refused) as refused:
        check_headers({"tdm-reservation": "1"})
    assert refused.value.reason == "opt_out_tdm_reservation"
    check_headers({"tdm-reservation": "0"})
    with pytest.raises(Refused):
        check_headers({"tdm-reservation": "1\n1"})


def test_a_pages_meta() -> None:
    for named in ([("robots", "noai")], [("Robots", "noindex, nofollow")], [("tdm-reservation", "1")]):
        with pytest.raises(Refused):
            check_meta(named)
    check_meta([("robots", "index, follow"), ("description", "noai"), ("otherbot", "noai")])


def test_a_sites_reservations_are_of_paths() -> None:
    rules = Reservations(
        b'[{"location": "/free/*", "tdm-reservation": 0}, {"location": "/*.jpg$", "tdm-reservation": 1},'
        b' {"location": "/own/", "tdm-reservation": 1}]'
    )
    for path in ("/a/b.jpg", "/own/x"):
        with pytest.raises(Refused):
            rules.check(path)
    for path in ("/free/x.jpg", "/a/b.jpg.html", "/other"):
        rules.check(path)
    for raw in (b"", b"{}", b"[1, {}]", b"[" * 100_000):
        Reservations(raw).check("/x")


def test_a_reservation_takes_no_time_that_grows_with_its_stars() -> None:
    rules = Reservations(json.dumps([{"location": "/" + "*a" * 500 + "*b", "tdm-reservation": 1}]).encode())
    started = time.perf_counter()
    rules.check("/" + "a" * 5000)
    assert time.perf_counter() - started < 1
