"""Patterns of paths as robots.txt and tdmrep.json have them: ``*`` stands for anything, ``$`` at the end for the end.

They are strangers' words about strangers' paths, so they are looked for part by part, in time that grows with both and
not with their powers, as it would with a regular expression.
"""

import re
from urllib.parse import quote

_ESCAPE = re.compile(r"%[0-9a-fA-F]{2}")
_ASCII = "".join(chr(c) for c in range(0x21, 0x7F))


def fits(pattern: str, path: str) -> bool:
    """Whether a path (both as `plain_pattern` and `plain_path` give them) begins with what a pattern says, or is it
    where that ends with "$" (RFC 9309, section 2.2.3)."""
    ends = pattern.endswith("$")
    first, *parts = pattern.removesuffix("$").split("*")
    if not path.startswith(first):
        return False
    if ends and not parts:
        return path == first
    last = parts.pop() if ends else ""
    place = len(first)
    for part in parts:
        found = path.find(part, place)
        if found < 0:
            return False
        place = found + len(part)
    return not ends or (len(path) - len(last) >= place and path.endswith(last))


def plain_pattern(pattern: str) -> str:
    """A pattern in one spelling: what needs no percent sign has none, what is no ASCII has one."""
    return quote(_ESCAPE.sub(_unescaped, pattern), safe=_ASCII, errors="replace")


def plain_path(path: str) -> str:
    """A path in the same spelling; its own ``*`` and ``$`` stand for themselves."""
    return plain_pattern(path).replace("*", "%2A").replace("$", "%24")


def _unescaped(escape: re.Match[str]) -> str:
    character = chr(int(escape[0][1:], 16))
    return character if character.isascii() and (character.isalnum() or character in "-._~") else escape[0].upper()
