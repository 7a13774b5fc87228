"""Which address a host's name leads to, asked once, and whether it may be connected to.

A link in a crawled page may name a machine of the network that we run in, by its number, by a name that leads there, or
by a name that leads elsewhere the first time (rebinding). So a name is resolved once, its address is judged, and the
connection is made to that very address.
"""

import ipaddress
import socket
from collections.abc import Callable
from typing import NamedTuple

from diptych.data.web.refused import Refused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], list[str]]
"""Gives a host's addresses for a port."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Target(NamedTuple):
    """Where to connect: an address, for a host and port."""

    host: str
    port: int
    address: str


def system_addresses(host: str, port: int) -> list[str]:
    """A host's addresses as the system resolves them."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError, ValueError) as error:
        raise Refused("no_such_host", f"a host must have an address; {host!r} has none ({error}).") from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(address: str) -> bool:
    """Whether an address is one of the public internet, also where it wraps an IPv4 one (mapped, NAT64, 6to4,
    Teredo)."""
    try:
        found: Address = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    inner = _wrapped(found)
    if inner is not None:
        return is_public(str(inner))
    inside = isinstance(found, ipaddress.IPv6Address) and found.is_site_local  # fec0::/10, which counts as global
    return found.is_global and not (inside or found.is_multicast or found.is_reserved or found.is_unspecified)


def choose(host: str, port: int, private_hosts: frozenset[str], resolve: Resolve = system_addresses) -> Target:
    """The address to connect to. Raises Refused: no_such_host, private_address, port.

    `private_hosts`: ``host`` or ``host:port`` that may lead to any address and have any port.
    """
    known = host in private_hosts or f"{host}:{port}" in private_hosts
    if port not in (80, 443) and not known:
        raise Refused("port", f"a port must be 80 or 443; got {port} of {host}. Allow it with private_hosts.")
    addresses = resolve(host, port)
    allowed = addresses if known else [a for a in addresses if is_public(a)]
    if not allowed or (not known and len(allowed) < len(addresses)):  # one that leads both ways leads nowhere
        raise Refused(
            "private_address",
            f"{host} must lead to public addresses only; got {', '.join(addresses) or 'none'}. Allow a host of your "
            "own with private_hosts.",
        )
    return Target(host, port, allowed[0])


def _wrapped(found: Address) -> ipaddress.IPv4Address | None:
    if not isinstance(found, ipaddress.IPv6Address):
        return None
    if found in _NAT64:
        return ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    teredo = found.teredo
    return found.ipv4_mapped or found.sixtofour or (teredo[1] if teredo else None)
