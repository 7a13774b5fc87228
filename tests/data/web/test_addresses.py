"""Which addresses are of the public internet, also inside of others."""

import pytest

from diptych.data.web.addresses import choose, is_public
from diptych.data.web.refused import Refused


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "8.8.8.8", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:8.8.8.8"]
)
def test_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("224.0.0.1", "255.255.255.255", "192.0.2.1", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1"),
        *("::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "2001:db8::1", "not an address"),
        *("fec0::1", "::127.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b:1::a00:1", "2001:0:1:1:0:0:f5ff:fffe"),
    ],
)
def test_not_public(address: str) -> None:
    assert not is_public(address)


def test_a_host_of_ones_own_may_be_allowed() -> None:
    assert choose("box", 8080, frozenset({"box"}), lambda *_: ["10.0.0.1"]).address == "10.0.0.1"
    assert choose("box", 8080, frozenset({"box:8080"}), lambda *_: ["10.0.0.1"]).port == 8080
    for allowed in (frozenset(), frozenset({"box:80"})):
        with pytest.raises(Refused) as refused:
            choose("box", 8080, allowed, lambda *_: ["10.0.0.1"])
        assert refused.value.reason == "port"
