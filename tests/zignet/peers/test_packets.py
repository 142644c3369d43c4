"""Whose packets go where: the rules of the application's side, and what an exit takes and brings back. Pure."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest

from zignet.exits import PeerExit
from zignet.exits.guests import GuestExit
from zignet.identity import SecretKey
from zignet.peers.packets import KEPT, Packets, Terms
from zignet.routing import Line, Rules

US, JP = (SecretKey(bytes((n,)) * 32).public for n in (5, 6))
OWN4, OWN6 = socket.inet_aton("100.64.0.1"), socket.inet_pton(socket.AF_INET6, "fd5a:6967:6e65::a")
RULES = [
    "DOMAIN-SUFFIX,video.example,jp",
    "DST-PORT,25,block",
    "IP-CIDR,198.51.100.128/25,direct",
    "IP-CIDR,198.51.100.0/24,us,packet",
    "203.0.113.0/24 -> jp packet",
    "IP-CIDR6,2001:db8:f::/48,us,packet",
    "IP-CIDR,192.0.2.0/24,us",
    "MATCH,direct",
]


def packed(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def key(text: str, protocol: int = 6, port: int = 443) -> bytes:
    return packed(text) + bytes((protocol,)) + port.to_bytes(2, "big")


def rules(*lines: str) -> Rules:
    exits = {"us": PeerExit("us", US), "jp": PeerExit("jp", JP)}
    return Rules.parse([Line(text, f"f:{number}") for number, text in enumerate(lines or RULES)], exits)


class World:
    """One node with two peers."""

    def __init__(self) -> None:
        self.sender: Any = SimpleNamespace(ways={}, whole=object())
        self.gateway: Any = SimpleNamespace(raw=bytearray(200), whole=None)
        self.peers = {each.x: SimpleNamespace(key=each, link=None) for each in (US, JP)}
        self.packets = Packets(self.sender, self.gateway, (OWN4, OWN6), self.peers.get)  # type: ignore[arg-type]
        self.links: dict[bytes, Any] = {}
        for number, peer in enumerate(self.peers.values(), 2):
            peer.address4, peer.address6 = bytes((100, 64, 0, number)), bytes(15) + bytes((number,))
            peer.link = self.links[peer.key.x] = SimpleNamespace(peer=peer, forwarded=None)

    def lead(self, *lines: str) -> None:
        self.packets.lead(rules(*lines), lambda name: {"us": US, "jp": JP}[name].x)

    def offer(self, may: Any = lambda link: True, private: bool = False, **more: Any) -> None:
        exit_ = GuestExit(private=private, mine=lambda address: address == packed("192.0.2.2"))
        self.packets.offer(Terms(may, exit_.may, **more), self.links.values())


@pytest.fixture
def world() -> World:
    made = World()
    made.lead()
    return made


@pytest.mark.parametrize(
    ("target", "protocol", "port", "peer"),
    [
        ("198.51.100.7", 6, 443, US),
        ("198.51.100.7", 1, 0, US),
        ("198.51.100.7", 47, 0, US),
        ("198.51.100.7", 6, 25, None),  # another rule is first
        ("198.51.100.200", 17, 53, None),
        ("203.0.113.9", 17, 53, JP),
        ("2001:db8:f::9", 58, 0, US),
        ("2001:db8:e::9", 58, 0, None),
        ("192.0.2.7", 6, 443, None),  # its flows, not its packets
        ("8.8.8.8", 6, 443, None),
    ],
)
def test_the_way_of_a_packet(world: World, target: str, protocol: int, port: int, peer: Any) -> None:
    asked = key(target, protocol, port)
    found = world.packets.way(asked)
    assert (found.key if found else None) == peer
    assert world.sender.ways[asked] is found


def test_only_a_rule_that_says_so_asks_for_packets(world: World) -> None:
    assert world.gateway.whole is world.sender.whole
    world.sender.ways[b"old"] = None
    world.lead("IP-CIDR,198.51.100.0/24,us", "MATCH,direct")
    assert world.gateway.whole is None
    assert world.sender.ways == {}


def test_what_is_remembered_has_a_bound(world: World) -> None:
    world.offer()
    link = world.links[US.x]
    for number in range(2 * KEPT):
        address = number.to_bytes(4, "big")
        world.packets.way(address + b"\6\1\xbb")
        world.packets.near(link, address)
        world.packets.stand_in(link, address + b"\6\1\xbb")
        world.packets.may_come(address)
    kept = world.sender.ways, world.packets._near, world.packets._allowed, world.packets._come
    assert all(len(each) <= KEPT for each in kept)


@pytest.mark.parametrize(
    ("peer", "far", "may"),
    [
        (US, "198.51.100.7", True),
        (US, "198.51.100.200", True),  # of the network, whatever rule is ahead of it
        (JP, "198.51.100.7", False),
        (US, "203.0.113.9", False),
        (JP, "203.0.113.9", True),
        (US, "192.0.2.7", False),
        (US, "0.0.0.0", False),
        (US, "2001:db8:f::1", True),
        (JP, "2001:db8:f::1", False),
    ],
)
def test_whose_answers_may_come(world: World, peer: Any, far: str, may: bool) -> None:
    own = OWN6 if ":" in far else OWN4
    for _ in range(2):
        assert world.packets.near(world.links[peer.x], packed(far)) == (own if may else None)


def test_a_rule_about_everything_is_not_about_nothing(world: World) -> None:
    world.lead("IP-CIDR,0.0.0.0/0,us,packet")
    link = world.links[US.x]
    assert world.packets.near(link, packed("8.8.8.8")) == OWN4
    assert world.packets.near(link, bytes(4)) is None
    assert world.packets.near(link, packed("2001:db8::1")) is None


def test_who_may(world: World) -> None:
    us, jp = (world.links[each.x] for each in (US, JP))
    asked = key("198.51.100.7")
    assert world.packets.stand_in(us, asked) is None
    world.offer(lambda link: link.peer.key == US)
    assert world.packets.stand_in(us, asked) == us.peer.address4
    assert world.packets.stand_in(us, key("2001:db8:f::1")) == us.peer.address6
    assert world.packets.stand_in(jp, asked) is None
    world.packets.offer(None, world.links.values())
    assert world.packets.stand_in(us, asked) is None


@pytest.mark.parametrize(
    ("offer", "target", "protocol", "port", "may"),
    [
        ({}, "198.51.100.7", 47, 0, True),
        ({}, "192.0.2.2", 6, 443, False),  # this host's own
        ({}, "10.0.0.1", 6, 443, False),
        ({"private": True}, "10.0.0.1", 6, 443, True),
        ({}, "::ffff:8.8.8.8", 6, 443, False),  # never on a wire
        ({}, "::8.8.8.8", 6, 443, False),
        ({}, "2606:4700::1", 6, 443, True),
        ({"ports": frozenset({443})}, "8.8.8.8", 6, 443, True),
        ({"ports": frozenset({443})}, "8.8.8.8", 17, 80, False),
        ({"ports": frozenset({443})}, "8.8.8.8", 1, 0, True),
        ({"ports": frozenset({443})}, "8.8.8.8", 47, 0, False),
        ({"tcp": False}, "8.8.8.8", 6, 443, False),
        ({"tcp": False}, "8.8.8.8", 17, 443, True),
        ({"udp": False}, "8.8.8.8", 17, 443, False),
    ],
)
def test_what_is_offered(world: World, offer: Any, target: str, protocol: int, port: int, may: bool) -> None:
    world.offer(**offer)
    found = world.packets.stand_in(world.links[US.x], key(target, protocol, port))
    assert (found is not None) == may


def test_answers(world: World) -> None:
    """What the kernel forwards to a peer that may, from outside; and what it says itself, by ICMP."""
    us = world.peers[US.x]
    world.packets.is_outside = lambda address: address[0] != 100
    raw = world.gateway.raw

    def asked(source: str, protocol: int) -> bool:
        raw[9], raw[12:16] = protocol, packed(source)
        return world.packets.is_answer(us, 0, False)  # type: ignore[arg-type]

    assert not asked("8.8.8.8", 6)  # nobody may
    world.offer()
    assert asked("8.8.8.8", 6)
    assert not asked("100.64.0.3", 6)  # another peer
    assert asked("100.64.0.3", 1)  # looked into by `Rare`
    us.link = None
    assert not asked("8.8.8.8", 6)


def test_addresses_of_this_host_may_change(world: World) -> None:
    world.packets.is_outside = lambda address: True
    assert world.packets.may_come(packed("8.8.8.8"))
    world.packets.is_outside = lambda address: False
    assert world.packets.may_come(packed("8.8.8.8"))
    world.packets.forget()
    assert not world.packets.may_come(packed("8.8.8.8"))
