"""Text as tokenizers want it: the same words in one spelling. Pure functions from string to string."""

import html
import string
from collections.abc import Callable
from typing import Literal

import ftfy

Canonical = Literal["none", "clip", "siglip"]

_NO_PUNCTUATION = str.maketrans("_", " ", string.punctuation.replace("_", ""))


def canonicalise_clip(text: str) -> str:
    """Mended encoding, entities resolved twice, whitespace collapsed, lower case (openai/CLIP, simple_tokenizer.py)."""
    if not (text.isascii() and text.isprintable() and "&" not in text):  # else both lines change nothing, for 20 us
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


def canonicalise_siglip(text: str) -> str:
    """Lower case without punctuation, underscores as spaces (big_vision, prompt_engineering.canonicalize_text)."""
    return " ".join(text.translate(_NO_PUNCTUATION).lower().split())


def canonicalise_none(text: str) -> str:
    """The text itself."""
    return text


CANONICAL: dict[str, Callable[[str], str]] = {
    "none": canonicalise_none,
    "clip": canonicalise_clip,
    "siglip": canonicalise_siglip,
}
