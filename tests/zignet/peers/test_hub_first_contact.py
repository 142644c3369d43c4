"""Two hubs meet: packets wait for the handshake, in order and bounded; who can't be reached is told so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.zignet.peers.hubs import (
    ALIASES,
    DELAY,
    HOST_UNREACHABLE,
    HOST_UNREACHABLE6,
    OWN4,
    Datagram,
    Node,
    World,
    icmp_error,
    met,
    payload,
    protocol,
    source,
)
from tests.zignet.peers.pair import echo, tcp, udp
from zignet.noise import Suite
from zignet.peers import hardware
from zignet.peers import hub as hub_module

pytestmark = pytest.mark.packet_path

INITIATION, RESPONSE, DATA = 1, 2, 4


@pytest.fixture
def pair(world: World) -> tuple[Node, Node]:
    """Two nodes that know each other, and have not met."""
    a, b = world.node("a"), world.node("b")
    a.knows(b)
    b.knows(a)
    return a, b


def kinds(world: World) -> list[tuple[str, int]]:
    """Who sent what type of message, in order."""
    names = {node.address: node.name for node in world.every}
    return [(names[one.source], one.data[0]) for one in world.sent]


# --- what waits


@pytest.mark.parametrize("v6", [False, True])
def test_packets_wait_for_the_handshake_and_arrive_in_order(
    world: World, pair: tuple[Node, Node], v6: bool
) -> None:
    a, b = pair
    sent = [b"%d" % number for number in range(10)]
    for one in sent:
        a.send(b, one, v6)
    assert kinds(world) == [("a", INITIATION)]
    assert len(a.link(b).waiting) == 10
    world.run(1.0)
    packets = b.take()
    assert [payload(packet) for packet in packets] == sent
    assert {source(packet) for packet in packets} == {b.way(a, v6)[1]}  # the address that b calls a by
    assert kinds(world)[:3] == [("a", INITIATION), ("b", RESPONSE), ("a", DATA)]
    assert a.link(b).waiting is None
    assert a.link(b).waiting_bytes == 0


def test_all_that_waits_is_sent_before_a_keepalive_or_anything_newer(
    world: World, pair: tuple[Node, Node]
) -> None:
    a, b = pair
    a.send(b, b"old")
    world.run(2 * DELAY)  # the response has come just now
    a.send(b, b"new")
    world.run(1.0)
    assert b.heard() == [b"old", b"new"]


def test_other_protocols_wait_too(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    packets = [tcp(a.way(b), b"t"), echo(a.way(b), b"p"), udp(a.way(b), b"u"), echo(a.way(b, True), b"six")]
    for packet in packets:
        a.give(packet)
    world.run(1.0)
    assert [protocol(packet) for packet in b.take()] == [6, 1, 17, 58]


def test_a_kept_packet_is_as_it_was_read(world: World, pair: tuple[Node, Node]) -> None:
    """The gateway's one buffer is used by others meanwhile."""
    a, b = pair
    a.send(b, b"x" * 1000)
    for number in range(20):
        a.give(udp((OWN4, bytes((203, 0, 113, number))), bytes((number,)) * 1200))
    assert len(a.passed) == 20
    world.run(1.0)
    assert b.heard() == [b"x" * 1000]


def test_64_packets_wait(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    for number in range(100):
        a.send(b, b"%d" % number)
    assert len(a.link(b).waiting) == 64
    assert a.hub.dropped["to peers: too much waits for a handshake"] == 36
    world.run(1.0)
    assert b.heard() == [b"%d" % number for number in range(36, 100)]


def test_256_kib_wait(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    for number in range(60):
        a.send(b, b"%04d" % number * 2000)
    packet = 10 + 28 + 8000
    assert len(a.link(b).waiting) == (256 << 10) // packet
    assert a.link(b).waiting_bytes <= 256 << 10
    world.run(1.0)
    first = 60 - (256 << 10) // packet
    assert b.heard() == [b"%04d" % number * 2000 for number in range(first, 60)]


def test_without_a_packet_a_keepalive_proves_the_session(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    a.hub.connect(a.hub.wake(a.peer(b)))
    world.run(1.0)
    assert a.connected(b)
    assert b.connected(a)
    assert a.heard() == b.heard() == []
    assert (a.hub.handshakes, b.hub.handshakes) == (1, 1)


# --- who can't be reached


@pytest.mark.parametrize("v6", [False, True])
def test_nobody_knows_where_it_is(world: World, v6: bool) -> None:
    """The sender of every packet is told at once, not only that of the first."""
    a, b = world.node("a"), world.node("b")
    a.knows(b, endpoint=None)
    for number in range(3):
        packet = udp(a.way(b, v6), b"%d" % number)
        a.give(packet)
        (told,) = map(icmp_error, a.take())
        assert (told.kind, told.code) == (HOST_UNREACHABLE6 if v6 else HOST_UNREACHABLE)
        assert told.source == a.way(b, v6)[1]
        assert told.quoted == packet
        world.run(0.3)
    assert world.sent == []
    assert a.hub.dropped["to peers: not reachable"] == 3


def test_it_may_come_to_us(world: World) -> None:
    """A peer without an endpoint has called, and its session is not valid yet: packets wait for that."""
    a, b = world.node("a"), world.node("b")
    a.knows(b, endpoint=None)
    b.knows(a)
    b.send(a, b"hello")
    world.run(DELAY)
    a.send(b, b"welcome")
    assert a.take() == []
    world.run(1.0)
    assert (a.heard(), b.heard()) == ([b"hello"], [b"welcome"])


def test_nobody_answers(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    before = a.state()
    world.fate = lambda datagram: ()
    a.send(b, b"one")
    world.run(50)
    a.send(b, b"two")
    assert a.take() == []
    world.run(39.5)
    assert a.take() == []
    assert len(world.of(INITIATION)) == 18  # every 5 s for 90 s
    assert len({one.data for one in world.sent}) == 18
    world.run(1.0)
    told = [icmp_error(packet) for packet in a.take()]
    assert [(one.kind, one.code) for one in told] == [HOST_UNREACHABLE] * 2
    assert [payload(one.quoted) for one in told] == [b"one", b"two"]
    assert a.state() == before  # the link has gone
    world.run(100)
    assert len(world.of(INITIATION)) == 18
    a.send(b, b"three")
    assert len(world.of(INITIATION)) == 19


def test_an_address_that_nobody_has(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    here4 = udp((OWN4, bytes((100, 64, 9, 9))), b"x")
    here6 = udp((a.own6, b.own6[:6] + bytes(10)), b"x")
    for packet, kind in ((here4, HOST_UNREACHABLE), (here6, HOST_UNREACHABLE6)):
        a.give(packet)
        (told,) = map(icmp_error, a.take())
        assert (told.kind, told.code, told.quoted) == (*kind, packet)
    assert a.passed == []
    a.give(udp((OWN4, ALIASES.network_address.packed), b"x"))  # the NAT's, and not ours
    assert len(a.passed) == 1


def test_nothing_is_passed_on_for_somebody_else(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    met(world, a, b)
    a.give(udp((bytes((10, 0, 0, 1)), a.way(b)[1]), b"x"))
    a.give(udp((b.own6, a.way(b, True)[1]), b"x"))
    world.run(1.0)
    assert b.heard() == []
    assert a.hub.sender.dropped["to peers: not from this host"] == 2


# --- a bad underlay


def nth(world: World, kind: int, number: int) -> None:
    """Lose the n-th message of a type."""
    seen = 0

    def fate(datagram: Datagram) -> tuple[Datagram, ...]:
        nonlocal seen
        seen += datagram.data[0] == kind
        return () if datagram.data[0] == kind and seen == number else (datagram,)

    world.fate = fate


@pytest.mark.parametrize("kind", [INITIATION, RESPONSE])
def test_a_lost_handshake_message(world: World, pair: tuple[Node, Node], kind: int) -> None:
    a, b = pair
    nth(world, kind, 1)
    a.send(b, b"hello")
    world.run(4.9)
    assert b.heard() == []
    world.run(0.5)
    assert b.heard() == [b"hello"]
    assert len(world.of(INITIATION)) == 2


@pytest.mark.parametrize(("number", "arrives"), [(1, [b"one", b"two"]), (2, [])])
def test_a_lost_first_message(
    world: World, pair: tuple[Node, Node], number: int, arrives: list[bytes]
) -> None:
    """A probe of the path, or what waited (in one bundle): lost, as on any network; any message proves the session."""
    a, b = pair
    nth(world, DATA, number)
    a.send(b, b"one")
    a.send(b, b"two")
    world.run(1.0)
    assert b.heard() == arrives
    assert b.connected(a)
    assert len(world.of(INITIATION)) == 1


def test_everything_comes_twice(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    world.fate = lambda datagram: (datagram, replace(datagram, delay=3 * DELAY))
    sent = [b"%d" % number for number in range(20)]
    a.send(b, b"first")
    world.run(1.0)
    for one in sent:
        a.send(b, one)
    world.run(1.0)
    assert b.heard() == [b"first", *sent]
    assert b.hub.receiver.dropped["replayed or too old"] >= 20
    for one in sent:
        b.send(a, one)
    world.run(1.0)
    assert a.heard() == sent
    assert (a.hub.handshakes, b.hub.handshakes) == (1, 1)


def test_data_before_the_response(world: World, pair: tuple[Node, Node]) -> None:
    """The later ones overtake the earlier ones, whatever they are: all that was sealed is opened."""
    a, b = pair
    delays = iter(range(1000, 0, -1))
    world.fate = lambda datagram: (replace(datagram, delay=next(delays) / 10_000),)
    sent = {b"%d" % number for number in range(30)}
    for one in sorted(sent):
        a.send(b, one)
    world.run(3.0)
    assert set(b.heard()) == sent


def test_both_call_at_once(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    a.send(b, b"from a")
    b.send(a, b"from b")
    world.run(1.0)
    assert (a.heard(), b.heard()) == ([b"from b"], [b"from a"])
    for number in range(10):
        a.send(b, b"a%d" % number)
        b.send(a, b"b%d" % number)
        world.run(0.01)
    world.run(1.0)
    assert a.heard() == [b"b%d" % number for number in range(10)]
    assert b.heard() == [b"a%d" % number for number in range(10)]


# --- the rest of it


def test_a_session_is_renewed_under_traffic_without_a_loss(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    sent = []
    for number in range(400):
        sent.append(b"%d" % number)
        a.send(b, sent[-1])
        world.run(1.0)
    assert b.heard() == sent
    assert len(world.of(INITIATION)) == 4  # at 0, and whenever one is 120 s old
    assert a.state()["openings"] == b.state()["openings"] == 2  # older than 180 s there is none


def test_who_has_nothing_to_say_is_silent(world: World, pair: tuple[Node, Node]) -> None:
    """No keepalive, no challenge, no renewal: two who have talked cost nothing from then on, and are forgotten."""
    a, b = pair
    before = a.state(), b.state()
    met(world, a, b)
    world.run(30)
    world.sent.clear()
    world.run(600)
    assert world.sent == []
    assert (a.state(), b.state()) == before


def test_a_peer_that_is_kept_alive_is_called_at_the_start(world: World) -> None:
    a, b = world.node("a"), world.node("b")
    b.knows(a, endpoint=None)
    a.knows(b, keepalive_s=25)
    a.restart()
    world.run(1.0)
    assert a.connected(b)
    sent = len(world.of(DATA, a))
    world.run(100)
    assert len(world.of(DATA, a)) - sent >= 4
    b.send(a, b"reachable at any time")
    world.run(1.0)
    assert a.heard() == [b"reachable at any time"]


def test_a_reload_asks_for_the_keepalive_of_a_peer_that_is_there(
    world: World, pair: tuple[Node, Node]
) -> None:
    a, b = pair
    met(world, a, b)
    world.run(200)
    assert not a.connected(b)
    a.knows(b, keepalive_s=25)
    a.send(b, b"again")
    world.run(300)
    assert a.connected(b)


def test_many_at_once(world: World) -> None:
    hub, others = world.node("hub"), [world.node(f"n{number}") for number in range(12)]
    for one in others:
        hub.knows(one)
        one.knows(hub)
        one.send(hub, one.name.encode())
    world.run(1.0)
    assert sorted(hub.heard()) == sorted(one.name.encode() for one in others)
    for one in others:
        hub.send(one, one.name.encode())
    world.run(1.0)
    assert all(one.heard() == [one.name.encode()] for one in others)


@pytest.mark.parametrize("aes", [("aes", "aes"), ("aes", "chacha20"), ("chacha20", "aes")])
def test_the_cipher(world: World, monkeypatch: pytest.MonkeyPatch, aes: tuple[str, str]) -> None:
    """AES only where both have instructions for it: known after the first handshake."""
    for module in (hub_module, hardware):
        monkeypatch.setattr(module, "has_aes", lambda: True)
    a, b = world.node("a", cipher=aes[0]), world.node("b", cipher=aes[1])
    met(world, a, b)
    first = Suite.AES if aes[0] == "aes" else Suite.CHACHA
    assert a.link(b).tunnel.sending.suite == b.link(a).tunnel.sending.suite == first
    world.run(121)
    a.send(b, b"renew")
    world.run(1.0)
    a.send(b, b"more")
    world.run(1.0)
    assert b.heard() == [b"renew", b"more"]
    second = Suite.AES if aes == ("aes", "aes") else Suite.CHACHA
    assert a.link(b).tunnel.sending.suite == second
    assert a.hub.handshakes == 2
