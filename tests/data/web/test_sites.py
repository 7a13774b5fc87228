"""What a site allows is asked before anything of it, once."""

import pytest

from diptych.data.web.refused import Refused
from diptych.data.web.safe_http import WebLimits
from diptych.data.web.sites import Sites
from tests.data.web.hostile import says, serving


def sites(port: int, **limits) -> Sites:
    known = WebLimits(timeout_s=2.0, private_hosts=frozenset({f"good.example:{port}"}), **limits)
    return Sites(known, resolve=lambda *_: ["127.0.0.1"])


def test_robots_and_reservations_are_asked_once() -> None:
    with serving() as (port, asked):
        known, base = sites(port), f"http://good.example:{port}"
        for _ in range(3):
            known.check(f"{base}/free/x.jpg")
        for path, reason in (("/private/x.jpg", "robots_txt"), ("/reserved/x.jpg", "opt_out_tdm_reservation")):
            with pytest.raises(Refused) as refused:
                known.check(base + path)
            assert refused.value.reason == reason
        assert known.delay(base) == 2.0
        assert sorted(asked) == ["/.well-known/tdmrep.json", "/robots.txt"]


@pytest.mark.parametrize("status, allowed", [("404 Not Found", True), ("403 Forbidden", True), ("503 Busy", False)])
def test_no_robots_forbid_nothing_and_unreachable_ones_all(status: str, allowed: bool) -> None:
    with serving({"/robots.txt": says(b"", status)}) as (port, _):
        known, url = sites(port), f"http://good.example:{port}/x.jpg"
        if allowed:
            known.check(url)
        else:
            with pytest.raises(Refused) as refused:
                known.check(url)
            assert refused.value.reason == "robots_txt_unreachable"


def test_a_site_of_the_inside_is_not_asked() -> None:
    with pytest.raises(Refused) as refused:
        Sites(WebLimits(), resolve=lambda *_: ["10.0.0.1"]).check("http://inside.example/x")
    assert refused.value.reason == "private_address"


def test_a_robots_txt_without_end_is_given_up() -> None:
    from tests.data.web.hostile import endless_body

    with serving({"/robots.txt": endless_body}) as (port, _), pytest.raises(Refused) as refused:
        sites(port).check(f"http://good.example:{port}/x")
    assert refused.value.reason == "robots_txt_unreachable"
