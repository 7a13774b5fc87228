"""What asks not to be used for training, and where it says so: headers, a page's meta, a site's files.

X-Robots-Tag and ``<meta name="robots">`` hold directives, some with a value after a colon, and may begin with the name
of whom they are for; only an unknown word before the first colon is such a name. TDMRep (W3C community group, for
article 4 of the EU's DSM directive): a header, or ``/.well-known/tdmrep.json`` with patterns of paths.
"""

import json
from collections.abc import Iterable, Mapping

from diptych.data.web.path_patterns import fits, plain_path, plain_pattern
from diptych.data.web.refused import Refused

DIRECTIVES = frozenset(
    {
        *("all", "index", "follow", "noindex", "nofollow", "none", "noarchive", "nosnippet", "noimageindex"),
        *("notranslate", "indexifembedded", "noai", "noimageai", "noml", "nocache", "noodp", "noydir"),
        *("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"),
    }
)
REFUSING = frozenset({"noai", "noimageai", "noml", "noindex", "noimageindex", "none"})
"""Directives by which a file is left alone. `none` is noindex and nofollow together."""
OURS = frozenset({"*", "diptych", "diptych-collect"})
"""Names that mean us."""


def robots_directives(value: str, ours: frozenset[str] = OURS) -> set[str]:
    """The directives of X-Robots-Tags (a line each) or of a robots meta that hold for us, in lower case and without
    their values."""
    found: set[str] = set()
    for line in value.lower().splitlines():
        mine = True
        for part in line.split(","):
            word, colon, rest = (x.strip() for x in part.partition(":"))
            if colon and word not in DIRECTIVES:  # a name, for which the rest of the line holds
                mine = word in ours
                word = rest.partition(":")[0].strip()
            if mine and word in DIRECTIVES:
                found.add(word)
    return found


def check_headers(headers: Mapping[str, str], ours: frozenset[str] = OURS) -> None:
    """Raise Refused (opt_out_<directive>) where an answer's headers ask not to be used."""
    refusing = sorted(robots_directives(headers.get("x-robots-tag", ""), ours) & REFUSING)
    if refusing:
        raise Refused(f"opt_out_{refusing[0]}", f"the server asks not to be used: X-Robots-Tag {', '.join(refusing)}.")
    if "1" in map(str.strip, headers.get("tdm-reservation", "").splitlines()):  # a line each time that it is said
        raise Refused("opt_out_tdm_reservation", "the server reserves text and data mining: tdm-reservation 1.")


def check_meta(named: Iterable[tuple[str, str]], ours: frozenset[str] = OURS) -> None:
    """The same of a page's ``<meta name=... content=...>``: robots, our own name, tdm-reservation."""
    for name, content in named:
        name = name.strip().lower()
        if name in ("robots", *ours):
            refusing = sorted(robots_directives(content, ours) & REFUSING)
            if refusing:
                raise Refused(f"opt_out_{refusing[0]}", f"the page asks not to be used: {', '.join(refusing)}.")
        if name == "tdm-reservation" and content.strip() == "1":
            raise Refused("opt_out_tdm_reservation", "the page reserves text and data mining.")


class Reservations:
    """A site's ``tdmrep.json``: which paths are reserved. What cannot be read reserves nothing."""

    def __init__(self, raw: bytes = b"[]") -> None:
        try:
            rows = json.loads(raw)
        except (ValueError, RecursionError):
            rows = []
        self.rules: list[tuple[str, bool]] = []
        for row in rows if isinstance(rows, list) else []:
            if isinstance(row, dict) and isinstance(row.get("location"), str):
                self.rules.append((plain_pattern(row["location"]), str(row.get("tdm-reservation", "0")) == "1"))

    def check(self, path: str) -> None:
        """Raise Refused (opt_out_tdm_reservation) where the first rule that fits a path reserves it."""
        plain = plain_path(path)
        for pattern, reserved in self.rules:
            if fits(pattern, plain):
                if reserved:
                    raise Refused(
                        "opt_out_tdm_reservation", f"the site reserves text and data mining of {path}: tdmrep.json."
                    )
                return
