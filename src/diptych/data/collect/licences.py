"""What a page says of its licence, as SPDX names it where it does."""

import re

_CC = re.compile(
    r"https?://(?:www\.)?creativecommons\.org/(licenses|publicdomain)/([a-z+-]{2,12})/(\d\.\d)(?:/([a-z]{2,3}))?(?:/|$|[?#])",
    re.IGNORECASE,
)
_PORTED = frozenset(
    {
        *("CC-BY-2.5-AU", "CC-BY-3.0-AT", "CC-BY-3.0-AU", "CC-BY-3.0-DE", "CC-BY-3.0-IGO", "CC-BY-3.0-NL"),
        *("CC-BY-3.0-US", "CC-BY-SA-3.0-AT", "CC-BY-SA-3.0-DE", "CC-BY-SA-3.0-IGO", "CC-BY-NC-3.0-DE"),
        *("CC-BY-NC-ND-3.0-DE", "CC-BY-NC-ND-3.0-IGO", "CC-BY-NC-SA-2.0-DE", "CC-BY-NC-SA-2.0-FR"),
        *("CC-BY-NC-SA-3.0-DE", "CC-BY-NC-SA-3.0-IGO", "CC-BY-ND-3.0-DE"),
    }
)
"""The ported licences that SPDX has names for."""
MOST_CHARACTERS = 200


def spdx(link: str) -> str:
    """The SPDX name of the licence that a link leads to (Creative Commons), else the link."""
    link = link.strip()[:MOST_CHARACTERS]
    match = _CC.match(link)
    if match is None:
        return link
    family, name, version, place = match[1].lower(), match[2].lower(), match[3], (match[4] or "").upper()
    if family == "publicdomain":
        return {"zero": f"CC0-{version}", "mark": f"CC-PDM-{version}"}.get(name, link)
    if name not in ("by", "by-sa", "by-nd", "by-nc", "by-nc-sa", "by-nc-nd"):
        return link
    found = f"CC-{name.upper()}-{version}"
    if place and f"{found}-{place}" not in _PORTED:
        return link
    return f"{found}-{place}" if place else found


def is_creative_commons(link: str) -> bool:
    """Whether a link leads to one of the Creative Commons' licences (any link of a page, as LAION takes it)."""
    return _CC.match(link.strip()[:MOST_CHARACTERS]) is not None
