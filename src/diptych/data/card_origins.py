"""Where records are from, as their meta says: licences, collectors, sites, languages, what asks not to be used."""

import unicodedata
from collections import Counter
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

LICENCE = ("licence", "license")
LANGUAGE = ("language", "lang", "LANGUAGE")
ADDRESS = ("url", "origin")
NOTHING = "nothing said"
TOP = 30
"""So many values of each are told, the most common ones; the others are counted together."""


class Origins:
    """Counts what the meta of records says. All of it is from outside, and cut to a line."""

    def __init__(self) -> None:
        self.read = self.texts = self.synthetic = 0
        self.licences, self.collectors, self.hosts = Counter[str](), Counter[str](), Counter[str]()
        self.opt_outs, self.languages, self.scripts = Counter[str](), Counter[str](), Counter[str]()

    def add(self, meta: dict[str, Any], captions: tuple[str, ...]) -> None:
        """One record's meta, and its captions: of the first, the script is told."""
        said = meta.get("collected")
        said = said if isinstance(said, dict) else {}
        self.read += 1
        self.texts += len(captions)
        self.licences[_first(said, LICENCE) or _first(meta, LICENCE) or NOTHING] += 1
        if collector := _line(said.get("collector")):
            rule = _line(said.get("rule"))
            self.collectors[f"{collector}, rule {rule}" if rule else collector] += 1
        if host := _host(_first(said, ADDRESS[::-1]) or _first(meta, ADDRESS)):
            self.hosts[host] += 1
        if asks := _line(said.get("opt_out")):
            self.opt_outs[asks] += 1
        if language := _first(meta, LANGUAGE):
            self.languages[language] += 1
        if captions:
            self.scripts[script(captions[0])] += 1
        made = meta.get("synthetic")
        self.synthetic += int(made) if isinstance(made, int) else 0

    def counts(self) -> dict[str, Any]:
        """{read, texts, synthetic, licences, collectors, hosts, opt_outs, languages, scripts}: counts, the largest
        first."""
        tables = ("licences", "collectors", "hosts", "opt_outs", "languages", "scripts")
        return {
            **{"read": self.read, "texts": self.texts, "synthetic": self.synthetic},
            **{name: _top(getattr(self, name)) for name in tables},
        }


def script(text: str) -> str:
    """The script of most letters of a text, as Unicode names it ("latin", "cyrillic", "cjk"); "none" without any."""
    if text.isascii():
        return "latin" if any(c.isalpha() for c in text) else "none"
    found = Counter(_script(c) for c in text if c.isalpha())
    return min(found, key=lambda s: (-found[s], s)) if found else "none"


@lru_cache(20_000)
def _script(letter: str) -> str:
    return unicodedata.name(letter, "unknown").partition(" ")[0].lower()


def _first(meta: dict[str, Any], names: tuple[str, ...]) -> str:
    return next((line for name in names if (line := _line(meta.get(name)))), "")


def _line(value: Any) -> str:
    return " ".join(str(value).split())[:120] if isinstance(value, (str, int, float)) else ""


def _host(origin: str) -> str:
    """The site of an address; of a file, its name."""
    try:
        parts = urlsplit(origin)
        if parts.scheme in ("http", "https"):
            return parts.hostname or ""
    except ValueError:  # not an address after all
        pass
    return origin.rpartition("/")[2]


def _top(counts: Counter[str]) -> dict[str, int]:
    ordered = sorted(counts.items(), key=lambda x: (-x[1], x[0]))
    found = dict(ordered[:TOP])
    if ordered[TOP:]:
        found[f"{len(ordered) - TOP:,} others"] = sum(n for _, n in ordered[TOP:])
    return found
