"""What a robots.txt allows (RFC 9309): the rules of the groups that name us, else of those for all; the longest rule
that fits a path decides, and Allow where two are as long.

Python's own parser takes the first rule that fits, knows no ``*`` and ``$`` within paths, passes over a first line that
begins with a byte order mark, and stops with an error at some addresses.
"""

import math
import re
from collections.abc import Collection

from diptych.data.web.path_patterns import fits, plain_path, plain_pattern

_LINE = re.compile(r"\r\n|\r|\n")
_TOKEN = re.compile(r"[A-Za-z_-]+")


def product_token(agent: str) -> str:
    """The name by which robots.txt knows a user agent, in lower case: "diptych-collect/0.1 (...)" is
    "diptych-collect"."""
    found = _TOKEN.match(agent.strip())
    return found[0].lower() if found else ""


class Robots:
    """The rules of a robots.txt for those who bear one of `names` (in lower case)."""

    def __init__(self, text: str = "", names: Collection[str] = ()) -> None:
        ours, everyones = list[tuple[str, str]](), list[tuple[str, str]]()
        named, agents, in_rules = False, set[str](), False
        for line in _LINE.split(text.removeprefix("\ufeff")):
            field, colon, value = (x.strip() for x in line.partition("#")[0].partition(":"))
            field = field.lower()
            if not colon:
                continue
            if field == "user-agent":
                if in_rules:
                    agents, in_rules = set(), False
                agents.add("*" if value.startswith("*") else product_token(value))
                named = named or not agents.isdisjoint(names)
            elif field in ("allow", "disallow", "crawl-delay"):
                in_rules = True
                if not agents.isdisjoint(names):
                    ours.append((field, value))
                if "*" in agents:
                    everyones.append((field, value))
        rules = ours if named else everyones
        self.delay = max((_seconds(v) for f, v in rules if f == "crawl-delay"), default=0.0)
        """Seconds that are wanted between two requests."""
        paths = [(plain_pattern(v), f == "allow") for f, v in rules if f != "crawl-delay" and v]
        self._rules = sorted(paths, key=lambda rule: (len(rule[0]), rule[1]), reverse=True)

    def allows(self, path: str) -> bool:
        """Whether a path (with its query) may be fetched."""
        plain = plain_path(path)
        return next((allowed for pattern, allowed in self._rules if fits(pattern, plain)), True)


def _seconds(value: str) -> float:
    try:
        found = float(value)
    except ValueError:
        return 0.0
    return found if math.isfinite(found) and found > 0 else 0.0
