"""What is known of each site before anything of it is fetched: its robots.txt and its tdmrep.json, asked once each.

As RFC 9309 has it: a robots.txt that is not there (4xx) forbids nothing, one that cannot be had (5xx, no answer, more
than MOST_BYTES) all.
"""

from collections import OrderedDict
from threading import Lock
from typing import NamedTuple

from diptych.data.web.addresses import Resolve, system_addresses
from diptych.data.web.opt_out import OURS, Reservations
from diptych.data.web.refused import Refused
from diptych.data.web.robots import Robots, product_token
from diptych.data.web.safe_http import WebLimits, get, split_url

MOST_SITES = 50_000
"""Sites that are remembered at once, the last ones asked."""
MOST_HELD = 16 << 20
"""Bytes of files of which the rules are remembered at once."""
MOST_BYTES = 500 << 10
"""Of a robots.txt (what RFC 9309, section 2.5, demands to be read) or tdmrep.json."""


class Site(NamedTuple):
    """A site's rules; `refused`: why nothing of it may be fetched, "" where something may; `size`: bytes of its
    files."""

    robots: Robots
    reservations: Reservations
    refused: str = ""
    size: int = 0


class Sites:
    """Knows what sites allow those who bear our names or that of the user agent. May be shared by threads."""

    def __init__(self, limits: WebLimits, resolve: Resolve = system_addresses) -> None:
        self.limits, self._resolve = limits.replace(max_bytes=MOST_BYTES), resolve
        self.names = (OURS - {"*"}) | ({product_token(limits.user_agent)} - {""})
        self._known: OrderedDict[str, Site] = OrderedDict()
        self._held = 0
        self._lock = Lock()

    def check(self, url: str) -> None:
        """Raise Refused where the site forbids a link: robots_txt, robots_txt_unreachable, opt_out_tdm_reservation; or
        where the site itself may not be asked (private_address, ...)."""
        _, host, _, path = split_url(url)
        site = self._site(url)
        if site.refused:
            raise Refused("robots_txt_unreachable", f"{host} must say what it allows; {site.refused}")
        if not site.robots.allows(path):
            raise Refused("robots_txt", f"{host} forbids {path} in its robots.txt.")
        site.reservations.check(path)

    def delay(self, url: str) -> float:
        """Seconds that a site wants between two requests; 0 where it says nothing."""
        return self._site(url).robots.delay

    def _site(self, url: str) -> Site:
        scheme, host, port, _ = split_url(url)
        origin = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        with self._lock:
            if origin in self._known:
                self._known.move_to_end(origin)
                return self._known[origin]
        found = self._ask(origin)
        with self._lock:
            before = self._known.pop(origin, None)  # another thread may have asked meanwhile
            self._held += found.size - (before.size if before else 0)
            self._known[origin] = found
            while len(self._known) > MOST_SITES or self._held > MOST_HELD:
                self._held -= self._known.popitem(last=False)[1].size
        return found

    def _ask(self, origin: str) -> Site:
        nothing = Site(Robots(), Reservations())
        try:
            answer = get(f"{origin}/robots.txt", self.limits, resolve=self._resolve)
        except Refused as error:
            if error.reason in ("private_address", "port", "no_such_host", "scheme", "bad_url"):
                raise
            return nothing._replace(refused=error.message)
        if answer.status >= 500:
            return nothing._replace(refused=f"its robots.txt answers {answer.status}.")
        text = answer.body.decode("utf-8", "replace") if answer.status < 300 else ""
        raw = self._reservations(origin)
        return Site(Robots(text, self.names), Reservations(raw), size=len(text) + len(raw))

    def _reservations(self, origin: str) -> bytes:
        try:
            answer = get(f"{origin}/.well-known/tdmrep.json", self.limits, resolve=self._resolve)
        except Refused:
            return b""
        return answer.body if answer.status == 200 else b""
