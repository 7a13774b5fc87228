"""What a site allows is asked before anything of it, once."""

import pytest

from diptych.data.web import sites as module
from diptych.data.web.refused import Refused
from diptych.data.web.safe_http import WebLimits
from diptych.data.web.sites import Sites
from tests.data.web.hostile import endless_body, says, serving


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
    with serving({"/robots.txt": endless_body}) as (port, _), pytest.raises(Refused) as refused:
        sites(port).check(f"http://good.example:{port}/x")
    assert refused.value.reason == "robots_txt_unreachable"


def test_the_name_of_the_user_agent_is_ours_too_and_odd_files_are_read() -> None:
    rules = "\ufeffUser-agent: herbarium\nDisallow: /\n\nUser-agent: *\nDisallow: //[x\n".encode()
    with serving({"/robots.txt": says(rules)}) as (port, _):
        url = f"http://good.example:{port}/x.jpg"
        sites(port).check(url)
        with pytest.raises(Refused, match=r"forbids /x\.jpg"):
            sites(port, user_agent="herbarium/1.0 (+mailto:a@b.org)").check(url)


def test_what_is_held_of_sites_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(module, "MOST_HELD", 3000)
    with serving({"/robots.txt": says(b"User-agent: *\nDisallow: /a\n" + b"#" * 1000)}) as (port, asked):
        hosts = [f"{i}.example" for i in range(6)]
        own = WebLimits(timeout_s=2.0, private_hosts=frozenset(f"{h}:{port}" for h in hosts))
        known = Sites(own, resolve=lambda *_: ["127.0.0.1"])
        for host in hosts:
            known.check(f"http://{host}:{port}/x")
        assert list(known._known) == [f"http://{h}:{port}" for h in hosts[-2:]]
        known.check(f"http://{hosts[0]}:{port}/x")
        assert asked.count("/robots.txt") == 7
