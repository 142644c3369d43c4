"""What is dialled for peers, and what never is, in whatever form its address comes."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from nat.exit import Dial, DialName, Reason, Refusal, Target, UdpDirect
from zignet.exits.guests import GuestExit, may_dial

OWN = (ip_network("100.64.0.0/10"), ip_network("fd5a:6967:6e65::/48"), ip_network("198.19.0.0/16"))
MINE = ip_address("203.0.113.77").packed


def dialled(text: str, private: bool = False) -> bool:
    return may_dial(ip_address(text).packed, private=private, own=OWN, mine=lambda address: address == MINE)


def forms(text: str) -> list[str]:
    """An IPv4 address within IPv6 ones."""
    number = int(ip_address(text))
    return [
        *(str(ip_address(int(ip_address(prefix)) + number)) for prefix in ("::ffff:0:0", "64:ff9b::")),
        str(ip_address((0x2002 << 112) + (number << 80) + 1)),
    ]


PUBLIC = ["1.1.1.1", "203.0.113.5", "192.0.1.1", "172.32.0.1", "11.0.0.1", "2001:db8::5", "2606:4700::1111"]
NEVER = [
    "0.0.0.0",
    "0.1.2.3",
    "127.0.0.1",
    "127.8.9.1",
    "169.254.169.254",
    "192.0.0.8",
    "224.0.0.1",
    "240.0.0.1",
]
NEVER += ["255.255.255.255", "100.64.0.1", "100.127.255.254", "198.19.0.7", "203.0.113.77"]
NEVER6 = [
    "::",
    "::1",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "100::5",
    "2001::1",
    "fd5a:6967:6e65::1",
    "4000::1",
    "5f00::1",
]
PRIVATE = ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "198.18.0.1"]
PRIVATE6 = ["fd00::1", "fc00::1", "2001:2::5", "64:ff9b:1::1"]


@pytest.mark.parametrize("text", PUBLIC)
def test_the_internet_is(text: str) -> None:
    assert dialled(text)
    if ":" not in text:
        assert all(map(dialled, forms(text)))


@pytest.mark.parametrize("text", NEVER + NEVER6)
def test_never(text: str) -> None:
    each = [text, *(forms(text) if ":" not in text else [])]
    assert not any(dialled(form, private) for form in each for private in (False, True))


@pytest.mark.parametrize("text", PRIVATE + PRIVATE6)
def test_private_networks_if_their_owner_says_so(text: str) -> None:
    for form in [text, *(forms(text) if ":" not in text else [])]:
        assert not dialled(form)
        assert dialled(form, private=True)


def test_how_a_flow_leaves() -> None:
    exit_ = GuestExit()
    target = Target(bytes(4), 443, "www.example", only_name=True)
    plan = exit_.tcp(target)
    assert isinstance(plan, DialName)
    assert (plan.name, plan.port) == ("www.example", 443)
    assert plan.may_dial is not None
    assert not plan.may_dial(ip_address("10.0.0.1").packed)
    assert exit_.tcp(target._replace(name="1.1.1.1")) == Dial(bytes((1, 1, 1, 1)), 443)
    refused = exit_.tcp(target._replace(name="10.0.0.1"))
    assert isinstance(refused, Refusal)
    assert refused.reason is Reason.PROHIBITED
    assert isinstance(exit_.tcp(target._replace(name=None)), Refusal)
    assert isinstance(exit_.udp(), UdpDirect)


def test_ports_and_protocols() -> None:
    exit_ = GuestExit(ports=frozenset((443,)), carries_udp=False)
    assert isinstance(exit_.tcp(Target(bytes(4), 443, "a")), DialName)
    assert isinstance(exit_.tcp(Target(bytes(4), 80, "a")), Refusal)
    assert isinstance(exit_.udp(), Refusal)
    assert isinstance(GuestExit(carries_tcp=False).tcp(Target(bytes(4), 443, "a")), Refusal)
    udp = GuestExit(ports=frozenset((443,))).udp()
    assert isinstance(udp, UdpDirect)
    assert udp.ports == {443}
