"""What is known of each site before anything of it is fetched: its robots.txt and its tdmrep.json, asked once each.

As RFC 9309 has it: a robots.txt that is not there (4xx) forbids nothing, one that cannot be had (5xx, no answer) all.
"""

from collections import OrderedDict
from threading import Lock
from typing import NamedTuple
from urllib.robotparser import RobotFileParser

from diptych.data.web.addresses import Resolve, system_addresses
from diptych.data.web.opt_out import Reservations
from diptych.data.web.refused import Refused
from diptych.data.web.safe_http import WebLimits, get, split_url

MOST_SITES = 50_000
"""Sites that are remembered at once, the last ones asked."""
MOST_BYTES = 500 << 10
"""Of a robots.txt; what is longer is read so far (RFC 9309, section 2.5)."""


class Site(NamedTuple):
    """A site's rules; `refused`: why nothing of it may be fetched, "" where something may."""

    robots: RobotFileParser
    reservations: Reservations
    refused: str


class Sites:
    """Knows what sites allow. `agent`: the product name by which robots.txt knows us. May be shared by threads."""

    def __init__(self, limits: WebLimits, agent: str = "diptych", resolve: Resolve = system_addresses) -> None:
        self.limits, self.agent, self._resolve = limits.replace(max_bytes=MOST_BYTES), agent, resolve
        self._known: OrderedDict[str, Site] = OrderedDict()
        self._lock = Lock()

    def check(self, url: str) -> None:
        """Raise Refused where the site forbids a link: robots_txt, robots_txt_unreachable, opt_out_tdm_reservation; or
        where the site itself may not be asked (private_address, ...)."""
        scheme, host, port, path = split_url(url)
        site = self._site(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}")
        if site.refused:
            raise Refused("robots_txt_unreachable", f"{host} must say what it allows; {site.refused}")
        if not site.robots.can_fetch(self.agent, url):
            raise Refused("robots_txt", f"{host} forbids {path} in its robots.txt.")
        site.reservations.check(path)

    def delay(self, url: str) -> float:
        """Seconds that a site wants between two requests; 0 where it says nothing."""
        scheme, host, port, _ = split_url(url)
        wanted = self._site(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}").robots.crawl_delay(self.agent)
        return float(wanted or 0)

    def _site(self, origin: str) -> Site:
        with self._lock:
            if origin in self._known:
                self._known.move_to_end(origin)
                return self._known[origin]
        found = self._ask(origin)
        with self._lock:
            self._known[origin] = found
            while len(self._known) > MOST_SITES:
                self._known.popitem(last=False)
        return found

    def _ask(self, origin: str) -> Site:
        robots = RobotFileParser()
        robots.parse([])
        try:
            answer = get(f"{origin}/robots.txt", self.limits, resolve=self._resolve)
        except Refused as error:
            if error.reason in ("private_address", "port", "no_such_host", "scheme", "bad_url"):
                raise
            return Site(robots, Reservations(), error.message)
        if answer.status >= 500:
            return Site(robots, Reservations(), f"its robots.txt answers {answer.status}.")
        if answer.status < 300:
            robots.parse(answer.body.decode("utf-8", "replace").splitlines())
        return Site(robots, self._reservations(origin), "")

    def _reservations(self, origin: str) -> Reservations:
        try:
            answer = get(f"{origin}/.well-known/tdmrep.json", self.limits, resolve=self._resolve)
        except Refused:
            return Reservations()
        return Reservations(answer.body) if answer.status == 200 else Reservations()
