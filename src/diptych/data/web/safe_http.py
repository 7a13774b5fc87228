"""One GET that cannot be turned against the machine that makes it.

Only http and https; the name resolved once and its address judged (`addresses.py`), at every redirect again; a limit on
bytes while they stream, and one deadline for all of it, so that a server which drips is left; no cookies, no
credentials, no proxies, no compressed bodies; the answer's headers are looked at before its body is read.
"""

import http.client
import io
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

from pydantic import Field

from diptych.core.config import Config
from diptych.data.web.addresses import Resolve, Target, choose, system_addresses
from diptych.data.web.refused import Refused

CHUNK = 1 << 16
MOST_URL = 1 << 13
"""Characters of a link."""
REDIRECTS = (301, 302, 303, 307, 308)
Judge = Callable[[Mapping[str, str]], None]
"""Looks at an answer's headers (names in lower case, repeated ones on lines of their own), and raises Refused."""
Ask = Callable[[str], None]
"""Looks at a link before it is asked, may wait, and raises Refused."""


class WebLimits(Config):
    """What a request may take.

    max_bytes      of a body
    timeout_s      of everything together: redirects, headers, body (a name's resolving has the system's own limit)
    max_redirects  that are followed
    private_hosts  ``host`` or ``host:port`` of one's own network that may be asked
    user_agent     who asks; say how to reach you
    """

    max_bytes: int = Field(default=20 << 20, gt=0)
    timeout_s: float = Field(default=20.0, gt=0)
    max_redirects: int = Field(default=5, ge=0)
    private_hosts: frozenset[str] = frozenset()
    user_agent: str = "diptych-collect/0.1"


class Fetched(NamedTuple):
    """An answer: the address that it came from in the end, its status, headers (names in lower case) and body."""

    url: str
    status: int
    headers: dict[str, str]
    body: bytes


def get(
    url: str,
    limits: WebLimits,
    judge: Judge | None = None,
    resolve: Resolve = system_addresses,
    accept: str = "*/*",
    ask: Ask | None = None,
) -> Fetched:
    """The answer to a GET, whatever its status, redirects followed. `ask` sees every link on the way before it is
    asked (its time is not the request's), `judge` the headers of the last answer before its body is read.

    Raises Refused: scheme, bad_url, no_such_host, private_address, port, too_many_redirects, timeout, too_many_bytes,
    encoded_body, unreachable, bad_answer, cut_short, and what `ask` and `judge` raise.
    """
    deadline = time.monotonic() + limits.timeout_s
    for _ in range(limits.max_redirects + 1):
        if ask is not None:
            began = time.monotonic()
            ask(url)
            deadline += time.monotonic() - began
        answer = _one(url, limits, deadline, judge, resolve, accept)
        if answer.status not in REDIRECTS or "location" not in answer.headers:
            return answer
        url = _joined(url, answer.headers["location"])
    raise Refused(
        "too_many_redirects", f"a link must lead somewhere within {limits.max_redirects} redirects; {url} goes on."
    )


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise Refused("bad_url", f"{url} must lead to a link; got {location[:200]!r} ({error}).") from None


def split_url(url: str) -> tuple[str, str, int, str]:
    """(scheme, host, port, path with query) of a link. Raises Refused: scheme, bad_url."""
    if len(url) > MOST_URL:
        raise Refused("bad_url", f"a link must have at most {MOST_URL:,} characters; got {len(url):,}.")
    try:
        parts = urlsplit(url.strip())
        scheme, host, port = parts.scheme.lower(), parts.hostname or "", parts.port
        host = host if host.isascii() else host.encode("idna").decode()
    except (ValueError, UnicodeError) as error:
        raise Refused("bad_url", f"a link must be one; got {url[:200]!r} ({error}).") from None
    if scheme not in ("http", "https"):
        raise Refused("scheme", f"a link must begin with http:// or https://; got {url[:200]!r}.")
    if not host or any(c <= " " or c in "\x7f\\" for c in host):
        raise Refused("bad_url", f"a link must name a host; got {url[:200]!r}.")
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._", errors="replace")
    query = quote(parts.query, safe="/%:@!$&'()*+,;=~-._?", errors="replace")
    return scheme, host, port or (443 if scheme == "https" else 80), path + (f"?{query}" if query else "")


def _one(url: str, limits: WebLimits, deadline: float, judge: Judge | None, resolve: Resolve, accept: str) -> Fetched:
    scheme, host, port, path = split_url(url)
    target = choose(host, port, limits.private_hosts, resolve)
    try:
        with _connected(target, scheme == "https", deadline) as sock:
            sock.sendall(_request(target, scheme, path, limits, accept))
            return _answer(url, sock, deadline, limits, judge)
    except TimeoutError:
        raise Refused("timeout", f"{host} must answer within {limits.timeout_s:g} s; it did not.") from None
    except (http.client.HTTPException, ValueError) as error:
        raise Refused("bad_answer", f"{host} must answer in HTTP; got {error!r}.") from None
    except OSError as error:
        raise Refused("unreachable", f"{host} must be reachable; got {error.strerror or error}.") from None


def _connected(target: Target, secure: bool, deadline: float) -> socket.socket:
    """A connection to the address that was judged, and to no other; its certificate must be the host's."""
    sock = socket.create_connection((target.address, target.port), timeout=_left(deadline))
    if not secure:
        return sock
    try:
        sock.settimeout(_left(deadline))
        return ssl.create_default_context().wrap_socket(sock, server_hostname=target.host)
    except BaseException:
        sock.close()
        raise


def _request(target: Target, scheme: str, path: str, limits: WebLimits, accept: str) -> bytes:
    host = f"[{target.host}]" if ":" in target.host else target.host
    usual = target.port == (443 if scheme == "https" else 80)
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host if usual else f'{host}:{target.port}'}",
        f"User-Agent: {limits.user_agent}",
        f"Accept: {accept}",
        "Accept-Encoding: identity",
        "Connection: close",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def _answer(url: str, sock: socket.socket, deadline: float, limits: WebLimits, judge: Judge | None) -> Fetched:
    # http.client asks a socket for a file to read from, and for nothing else
    given: Any = _Readable(sock, deadline)
    response = http.client.HTTPResponse(given, method="GET")
    response.begin()
    headers: dict[str, str] = {}
    for name, value in response.getheaders():
        known = headers.get(name.lower())
        headers[name.lower()] = value if known is None else f"{known}\n{value}"
    if response.status in REDIRECTS and "location" in headers:
        return Fetched(url, response.status, headers, b"")
    if judge is not None:
        judge(headers)
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise Refused("encoded_body", f"{url} must come as it is; got content-encoding {headers['content-encoding']}.")
    _check_size(url, int(headers["content-length"]) if headers.get("content-length", "").isdigit() else 0, limits)
    body = bytearray()
    while chunk := response.read1(CHUNK):
        body += chunk
        _check_size(url, len(body), limits)
    if response.length:  # what was promised did not come
        raise Refused("cut_short", f"{url} must send all that it announces; {response.length:,} bytes are missing.")
    return Fetched(url, response.status, headers, bytes(body))


def _check_size(url: str, size: int, limits: WebLimits) -> None:
    if size > limits.max_bytes:
        raise Refused("too_many_bytes", f"{url} must have at most {limits.max_bytes:,} bytes; got {size:,} or more.")


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _Readable(io.RawIOBase):
    """A socket to read from, until a deadline that holds for all reads together."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock, self._deadline = sock, deadline

    def makefile(self, mode: str) -> io.BufferedReader:
        """What http.client reads from."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(_left(self._deadline))
        return self._sock.recv_into(buffer)
