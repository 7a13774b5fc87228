"""The hostile server takes nothing: each of its attacks ends with a reason."""

import socket
import time

import pytest

from diptych.data.web import safe_http
from diptych.data.web.opt_out import check_headers
from diptych.data.web.refused import Refused
from diptych.data.web.safe_http import WebLimits, get, split_url
from tests.data.web.hostile import serving

HOSTS = {"good.example": ["127.0.0.1"], "both.example": ["93.184.216.34", "10.0.0.1"], "inside.example": ["10.1.2.3"]}


def resolve(host: str, port: int) -> list[str]:
    return HOSTS.get(host, [host])


@pytest.fixture(scope="module")
def server():
    with serving() as (port, asked):
        yield port, asked


def ask(port: int, path: str, **limits):
    known = frozenset({f"good.example:{port}"})
    given = WebLimits(**{"timeout_s": 1.0, "max_bytes": 100_000, "private_hosts": known} | limits)
    return get(f"http://good.example:{port}{path}", given, check_headers, resolve)


def test_an_answer_as_it_is(server) -> None:
    found = ask(server[0], "/ok")
    assert (found.status, found.body) == (200, b"fine")
    assert ask(server[0], "/to-ok").url.endswith("/ok")
    assert ask(server[0], "/nothing").status == 404


@pytest.mark.parametrize(
    "path, reason",
    [
        ("/slow-body", "timeout"),
        ("/slow-headers", "timeout"),
        ("/silence", "timeout"),
        ("/endless-body", "too_many_bytes"),
        ("/huge", "too_many_bytes"),
        ("/cut-short", "cut_short"),
        ("/endless-headers", "bad_answer"),
        ("/garbage", "bad_answer"),
        ("/gzip", "encoded_body"),
        ("/to-private", "private_address"),
        ("/to-metadata", "private_address"),
        ("/to-loopback", "private_address"),
        ("/to-file", "scheme"),
        ("/to-port", "port"),
        ("/to-nonsense", "bad_url"),
        ("/to-length", "bad_url"),
        ("/to-itself", "too_many_redirects"),
        ("/noai", "opt_out_noai"),
        ("/tdm", "opt_out_tdm_reservation"),
    ],
)
def test_an_attack_ends_with_its_reason_and_soon(server, path: str, reason: str) -> None:
    started = time.monotonic()
    with pytest.raises(Refused) as refused:
        ask(server[0], path)
    assert refused.value.reason == reason
    assert refused.value.message
    assert time.monotonic() - started < 3


def test_every_link_on_the_way_is_shown_first_and_that_takes_no_time_of_the_request(server) -> None:
    port, seen = server[0], list[str]()

    def slowly(url: str) -> None:
        seen.append(url)
        time.sleep(0.6)

    given = WebLimits(timeout_s=1.0, private_hosts=frozenset({f"good.example:{port}"}))
    get(f"http://good.example:{port}/to-ok", given, resolve=resolve, ask=slowly)
    assert [url.rpartition("/")[2] for url in seen] == ["to-ok", "ok"]


def test_a_server_that_hangs_up_is_named(server) -> None:
    with pytest.raises(Refused) as refused:
        ask(server[0], "/hang-up")
    assert refused.value.reason in ("bad_answer", "unreachable")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://localhost/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://0.0.0.0/",
        "http://169.254.169.254/",
        "http://192.168.0.1/",
        "http://100.64.0.1/",
        "http://224.0.0.1/",
        "http://user:word@10.0.0.1/",
    ],
)
def test_no_address_of_the_inside_is_connected_to(url: str, monkeypatch) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("connected"))
    with pytest.raises(Refused) as refused:
        get(url, WebLimits(timeout_s=2))
    assert refused.value.reason in ("private_address", "no_such_host")


def test_names_that_lead_inside_or_both_ways(monkeypatch) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("connected"))
    for host in ("inside.example", "both.example"):
        with pytest.raises(Refused) as refused:
            get(f"http://{host}/", WebLimits(), resolve=resolve)
        assert refused.value.reason == "private_address"


def test_a_name_is_resolved_once_and_its_judged_address_connected_to(monkeypatch) -> None:
    answers = iter([["93.184.216.34"], ["127.0.0.1"]])
    connected = []

    def connect(address, timeout):
        connected.append(address)
        raise OSError("unreachable here")

    monkeypatch.setattr(safe_http.socket, "create_connection", connect)
    with pytest.raises(Refused) as refused:
        get("http://rebinds.example/", WebLimits(), resolve=lambda *_: next(answers))
    assert refused.value.reason == "unreachable"
    assert connected == [("93.184.216.34", 80)]


def test_links_are_taken_apart() -> None:
    assert split_url("HTTPS://Ex\u00e4mple.org/a b?q=\u00fc") == (
        "https",
        "xn--exmple-cua.org",
        443,
        "/a%20b?q=%C3%BC",
    )
    for url, reason in (
        ("ftp://x/", "scheme"),
        ("javascript:alert(1)", "scheme"),
        ("http:///path", "bad_url"),
        ("http://x:99999/", "bad_url"),
        ("http://[::1", "bad_url"),
        ("http://a\\b/", "bad_url"),
        ("http://x/" + "a" * 9000, "bad_url"),
    ):
        with pytest.raises(Refused) as refused:
            split_url(url)
        assert refused.value.reason == reason, url
    assert split_url("http://x/\ud800?\ud800")[3] == "/%3F??"
    assert "\r" not in split_url("http://x/a\r\nHost: y")[3]
