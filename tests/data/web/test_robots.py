"""robots.txt by RFC 9309: groups, the longest rule, names, odd bytes."""

import pytest

from diptych.data.web.robots import Robots, product_token

NAMES = {"diptych", "diptych-collect"}


@pytest.mark.parametrize(
    "text, path, allowed",
    [
        ("", "/", True),
        ("User-agent: *\nDisallow: /", "/a", False),
        ("User-agent: *\nDisallow:", "/a", True),
        ("\ufeffUser-agent: *\nDisallow: /", "/a", False),
        ("USER-AGENT:*\r\ndisallow:/a # why\r\n", "/ab", False),
        ("User-agent: *\rDisallow: /a\r", "/a", False),
        ("User-agent: *\nAllow: /\nDisallow: /a", "/a", False),  # the longest rule, not the first
        ("User-agent: *\nDisallow: /a\nAllow: /a", "/a", True),
        ("User-agent: *\nDisallow: /*.jpg$", "/x/y.jpg", False),
        ("User-agent: *\nDisallow: //[x", "/a", True),
        ("Disallow: /", "/a", True),  # of nobody
        ("User-agent: Diptych\nDisallow: /", "/a", False),
        ("User-agent: diptych-collect/2.0\nDisallow: /", "/a", False),
        ("User-agent: dip\nDisallow: /", "/a", True),
        ("User-agent: *\nDisallow: /\n\nUser-agent: diptych\nDisallow: /b", "/a", True),
        ("User-agent: *\nDisallow: /\n\nUser-agent: diptych\n", "/a", True),
        ("User-agent: a\nUser-agent: diptych\nDisallow: /", "/a", False),
        (
            "User-agent: diptych\nDisallow: /a\nUser-agent: x\nDisallow: /b\nUser-agent: diptych\nDisallow: /c",
            "/c",
            False,
        ),
        ("User-agent: *\nSitemap: https://x/\nDisallow: /a", "/a", False),
        ("User-agent: *\nDisallow: /a\x85b\n", "/a%C2%85b", False),  # a line ends where the RFC says, nowhere else
    ],
)
def test_rules(text: str, path: str, allowed: bool) -> None:
    assert Robots(text, NAMES).allows(path) == allowed


def test_delays() -> None:
    assert Robots("User-agent: *\nCrawl-delay: 2.5", NAMES).delay == 2.5
    assert Robots("User-agent: x\nCrawl-delay: 9\nUser-agent: diptych\nCrawl-delay: 3", NAMES).delay == 3
    for odd in ("inf", "nan", "-1", "soon", "1e999"):
        assert Robots(f"User-agent: *\nCrawl-delay: {odd}", NAMES).delay == 0


def test_the_name_of_a_user_agent() -> None:
    assert product_token("diptych-collect/0.1 (x)") == "diptych-collect"
    assert product_token("(x)") == ""
