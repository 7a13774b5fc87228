"""A sentence as the words that caption scores count, spelled as COCO's scorer spells them before it counts.

COCO's captions pass through the tokenizer of the Penn Treebank (a Java program) and lose their punctuation. What
follows keeps its rules that matter to captions: lower case, clitics split off ("cat's" is "cat 's", "don't" is
"do n't"), hyphenated words whole, decimals and thousands whole, and the same list of punctuation dropped.
"""

import re

PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-lrb-", "-rrb-", "-lcb-", "-rcb-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)
"""What COCO's scorer drops. Brackets are spelled out by the tokenizer, and so dropped too."""

_PIECES = re.compile(
    r"""
    \d+(?:[.,:]\d+)+            # 3.5  1,000  12:30
    | \w+(?:[-.]\w+)*           # t-shirt  u.s
    | '(?:s|m|d|ll|re|ve)\b     # what is left of a clitic
    | [^\w\s]                   # any other sign by itself
    """,
    re.VERBOSE,
)
_NOT = re.compile(r"(?<=\w)n['’]t\b")
_CLITIC = re.compile(r"(?<=\w)['’](s|m|d|ll|re|ve)\b")
_DROPPED = PUNCTUATION | set('()[]{}"“”‘’–—…')


def caption_words(caption: str) -> tuple[str, ...]:
    """The words of a caption, lower-cased, without punctuation."""
    text = _CLITIC.sub(r" '\1", _NOT.sub(" n't", caption.lower()))
    words: list[str] = []
    for chunk in text.split():
        words += ["n't"] if chunk == "n't" else _PIECES.findall(chunk)
    return tuple(w for w in words if w not in _DROPPED)
