"""One spelling for the same words."""

import ftfy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.data.canonicalise import canonicalise_clip, canonicalise_none, canonicalise_siglip


def test_clip_mends_entities_whitespace_and_case() -> None:
    assert canonicalise_clip("  A&amp;amp;B \t\n “Café” ") == 'a&b "café"'
    assert canonicalise_clip("âœ” No problems") == "✔ no problems"
    assert canonicalise_clip("A Dog's Ball") == "a dog's ball"


def test_siglip_drops_punctuation() -> None:
    assert canonicalise_siglip(" A Photo, of_a  (Dog)! ") == "a photo of a dog"
    assert canonicalise_none(" A ") == " A "


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=[chr(c) for c in range(32, 127) if chr(c) != "&"]))
def test_the_short_cut_for_plain_ascii_changes_nothing(text: str) -> None:
    assert ftfy.fix_text(text) == text
    assert canonicalise_clip(text) == " ".join(text.split()).lower()


@pytest.mark.parametrize("f", [canonicalise_clip, canonicalise_siglip])
def test_a_second_time_changes_nothing(f) -> None:  # type: ignore[no-untyped-def]
    once = f("Don’t &lt;b&gt; STOP_now … ﬁn")
    assert f(once) == once
