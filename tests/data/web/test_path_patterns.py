"""Patterns of paths fit as RFC 9309 says, and in time that does not explode."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diptych.data.web.path_patterns import fits, plain_path, plain_pattern


@pytest.mark.parametrize(
    "pattern, path, does",
    [
        ("/", "/anything", True),
        ("/fish", "/fishheads/yummy.html", True),
        ("/fish", "/Fish.asp", False),
        ("/fish*", "/fish.html", True),
        ("/*.php", "/folder/any.php.file.html", True),
        ("/*.php$", "/filename.php", True),
        ("/*.php$", "/filename.php?parameters", False),
        ("/fish*.php", "/fishheads/catfish.php?parameters", True),
        ("/a$", "/a", True),
        ("/a$", "/ab", False),
        ("*a$", "/ba", True),
        ("/aa*aa$", "/aaa", False),
        ("/foo/bar/\u30c4", "/foo/bar/%E3%83%84", True),
        ("/foo/bar/%E3%83%84", "/foo/bar/\u30c4", True),
        ("/foo/bar/%62%61%7a", "/foo/bar/baz", True),
        ("/a%3cd", "/a%3Cd", True),
        ("/a%2Fb", "/a/b", False),
        ("/path/file-with-a-%2A.html", "/path/file-with-a-*.html", True),
        ("/path/foo-%24", "/path/foo-$", True),
    ],
)
def test_as_the_rfc_says(pattern: str, path: str, does: bool) -> None:
    assert fits(plain_pattern(pattern), plain_path(path)) == does


@given(st.text("ab*", max_size=8), st.booleans(), st.text("ab", max_size=12))
def test_as_a_regular_expression_would(body: str, ends: bool, path: str) -> None:
    plain = re.compile(".*".join(map(re.escape, body.split("*"))) + (r"\Z" if ends else ""))
    assert fits(body + "$" * ends, path) == bool(plain.match(path))
