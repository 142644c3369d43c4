"""The configuration and what it admits, as they change: sessions that stay, sessions that end, addresses that move."""

from __future__ import annotations

import logging
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from tests.zignet.peers.hubs import HOST_UNREACHABLE, Node, Stranger, World, icmp_error, met, payload, source
from tests.zignet.peers.pair import udp

INITIATION, RESPONSE, DATA = 1, 2, 4
KEEPALIVE = 36  # bytes


@pytest.fixture
def pair(world: World) -> tuple[Node, Node]:
    """Two nodes that know each other, and have met."""
    a, b = world.node("a"), world.node("b")
    met(world, a, b)
    return a, b


def talk(world: World, a: Node, b: Node) -> None:
    a.send(b, b"there")
    world.run(1.0)
    assert b.heard() == [b"there"]
    b.send(a, b"back")
    world.run(1.0)
    assert a.heard() == [b"back"]


# --- who goes


def test_a_peer_that_is_taken_out_and_no_longer_admitted(
    world: World, caplog: pytest.LogCaptureFixture, pair: tuple[Node, Node]
) -> None:
    """Its session ends at once, with a farewell, and it does not come back."""
    a, b = pair
    address = b.peer(a).address4
    with caplog.at_level(logging.INFO, "zignet.peers"):
        b.forgets(a)
        world.run(0.1)
    assert b.peer(a) is None
    assert not a.connected(b)
    assert "is not admitted any more" in caplog.text
    assert "b does not admit this node any more" in caplog.text
    state = b.state()
    assert (state["known"], state["addresses"], state["tunnels"], state["links"]) == (0, 0, 0, 0)
    assert state["stored"] == 1  # its address stays its own
    world.run(200)
    assert world.of(INITIATION, a)[1:] == []  # told so, it does not try by itself
    a.send(b, b"let me in")
    world.run(100)
    assert len(a.take()) == 1
    assert b.heard() == []
    b.knows(a)
    assert b.peer(a).address4 == address
    talk(world, a, b)


def test_a_peer_that_is_taken_out_and_still_admitted(world: World, pair: tuple[Node, Node]) -> None:
    """The session goes on; it is one that came by itself, and goes when its time is over."""
    a, b = pair
    b.admits("allow")
    b.forgets(a)
    assert b.connected(a)
    assert b.peer(a).settings is None
    talk(world, a, b)
    assert a.hub.handshakes == 1
    world.run(900)
    assert b.peer(a) is None
    talk_again = b"as a stranger"
    a.send(b, talk_again)
    world.run(1.0)
    assert b.heard() == [talk_again]


def test_the_settings_of_a_peer_go_with_it(world: World, tmp_path: Path) -> None:
    """It stays as a stranger: nobody keeps it alive, and it needs no pre-shared key."""
    path = tmp_path / "psk"
    path.write_text("11" * 32 + "\n")
    path.chmod(0o600)
    a, b = world.node("a"), world.node("b")
    met(world, a, b, psk_file=path, keepalive_s=25)
    b.admits("allow")
    b.forgets(a)
    a.knows(b)
    world.run(121)
    a.send(b, b"renewed without")
    world.run(1.0)
    assert b.heard() == [b"renewed without"]
    assert b.hub.handshakes == 2
    world.run(15)
    world.sent.clear()
    world.run(100)
    assert not any(len(one.data) == KEEPALIVE for one in world.sent)


@pytest.mark.parametrize("how", ["deny", "default"])
def test_denied(world: World, pair: tuple[Node, Node], how: str) -> None:
    a, b = pair
    if how == "default":
        b.admits("allow")
        b.forgets(a)
        b.admits("deny")
    else:
        b.admits("allow", deny=[a])
    world.run(0.1)
    assert not a.connected(b)
    assert b.link(a) is None if how == "deny" else b.peer(a) is None
    assert b.state()["openings"] == 0
    a.send(b, b"x")
    world.run(100)
    assert b.heard() == []
    assert world.of(RESPONSE, b, a)[1:] == []


def test_who_is_denied_is_not_called_either(world: World, pair: tuple[Node, Node]) -> None:
    """A session would let it in. Our user is told at once."""
    a, b = pair
    b.admits(deny=[a])
    world.run(1.0)
    world.sent.clear()
    b.send(a, b"x")
    (told,) = map(icmp_error, b.take())
    assert (told.kind, told.code) == HOST_UNREACHABLE
    world.run(300)
    assert world.sent == []
    b.admits()
    b.send(a, b"y")
    world.run(1.0)
    assert a.heard() == [b"y"]


def test_denied_while_it_is_called(world: World) -> None:
    """The response comes too late."""
    a, b = world.node("a"), world.node("b")
    a.knows(b)
    b.knows(a)
    a.send(b, b"x")
    world.run(0.06)
    a.admits(deny=[b])
    (told,) = map(icmp_error, a.take())
    assert (told.kind, told.code) == HOST_UNREACHABLE
    world.run(1.0)
    assert not a.connected(b)
    assert a.state()["openings"] == 0
    assert a.dropped()["handshake: a response to nothing"] == 1


def test_the_policy_is_asked_again_now_and_then(
    world: World, monkeypatch: pytest.MonkeyPatch, pair: tuple[Node, Node]
) -> None:
    """Also where no reload says that it has changed: an answer may depend on the time."""
    a, b = pair
    admission = b.hub.admission
    until = world.now + 40

    class Curfew:
        def admit(self, key: object, now: float) -> object:
            decision = admission.admit(key, now)  # type: ignore[arg-type]
            return decision if now < until else type(decision)(False, "It is late.")

    b.hub.admission = Curfew()  # type: ignore[assignment]
    world.run(39)
    assert b.connected(a)
    world.run(31)
    assert b.link(a) is None
    assert not a.connected(b)


def test_an_open_door_is_closed(world: World) -> None:
    """Strangers that came by themselves are told, all of them; configured peers stay."""
    b, others = world.node("b"), [world.node(f"s{number}") for number in range(5)]
    b.knows(others[0])
    b.admits("allow")
    for one in others:
        one.knows(b)
        one.send(b, b"x")
    world.run(1.0)
    assert len(b.heard()) == 5
    b.admits("deny", allow=[others[1]])
    world.run(0.1)
    assert [one.connected(b) for one in others] == [True, True, False, False, False]
    assert b.state()["known"] == 2


# --- farewells


def test_a_node_that_stops_says_farewell(
    world: World, caplog: pytest.LogCaptureFixture, pair: tuple[Node, Node]
) -> None:
    a, b = pair
    talk(world, a, b)
    with caplog.at_level(logging.INFO, "zignet.peers"):
        a.hub.close()
        world.run(0.1)
    assert "a has said farewell" in caplog.text
    assert not b.connected(a)
    assert b.state()["openings"] == 0
    a.kill()
    b.send(a, b"anybody?")
    world.run(4)
    assert b.take() == []  # it is looked for, and not given up at once
    a.start()
    world.run(60)
    assert a.heard() == [b"anybody?"]


def test_nothing_is_left_of_a_node_that_stopped(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    a.admits("allow")
    world.throw(a, Stranger(77).begin(a))
    session, hub = a.link(b).tunnel.sending, a.hub
    a.send(b, b"x")
    assert hub.pending == 1
    hub.close()
    assert hub.indices.tunnels == hub.indices.openings == {}
    assert hub.links() == []
    assert session.opening is None


def test_farewell_is_said_on_every_session(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    world.run(121)
    talk(world, a, b)
    talk(world, a, b)
    assert b.state()["openings"] == a.state()["openings"] == 2
    a.hub.close()
    world.run(0.1)
    assert b.state()["openings"] == 0


# --- settings


def test_a_reload_changes_nothing_of_what_stays(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    before = a.state(), b.state()
    for node in pair:
        for _ in range(3):
            node.reload()
    assert (a.state(), b.state()) == before
    talk(world, a, b)
    assert (a.hub.handshakes, b.hub.handshakes) == (1, 1)


def test_a_new_endpoint(world: World) -> None:
    a, b = world.node("a"), world.node("b")
    a.knows(b, "192.0.2.99:51830")
    b.knows(a)
    a.send(b, b"x")
    world.run(10)
    a.knows(b)
    world.run(6)
    assert b.heard() == [b"x"]


def test_an_endpoint_that_is_taken_out(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    a.knows(b, None)
    talk(world, a, b)  # it was met, and is remembered where it was
    a.link(b).tunnel.forget()
    a.hub._forget(a.link(b))
    a.send(b, b"x")
    assert len(a.take()) == 1


def test_another_name(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    a.knows(b, name="bee")
    assert a.hub.table.find("bee") is a.peer(b)
    assert a.hub.table.find("b") is None
    talk(world, a, b)


# --- addresses


def test_a_fixed_address(world: World, pair: tuple[Node, Node]) -> None:
    """The session goes on under the new address, for what goes out and what comes in."""
    a, b = pair
    old = a.peer(b).address4
    a.knows(b, address=IPv4Address("100.70.0.1"))
    assert a.peer(b).address4 == bytes((100, 70, 0, 1))
    assert old not in a.hub.table.by_address
    a.send(b, b"there")
    b.send(a, b"back")
    world.run(1.0)
    assert b.heard() == [b"there"]
    (packet,) = a.take()
    assert source(packet) == bytes((100, 70, 0, 1))
    assert a.hub.handshakes == 1
    a.restart()
    assert a.peer(b).address4 == bytes((100, 70, 0, 1))


def test_a_fixed_address_that_a_stranger_had(world: World) -> None:
    """The stranger moves, and nothing that it sends looks as if the other one had sent it."""
    a, s, p = world.node("a"), world.node("s"), world.node("p")
    a.admits("allow")
    s.knows(a)
    s.send(a, b"x")
    world.run(1.0)
    a.heard()
    wanted = a.peer(s).address4
    p.knows(a)
    a.knows(p, address=IPv4Address(wanted))
    assert a.peer(p).address4 == wanted
    assert a.peer(s).address4 != wanted
    s.send(a, b"from s")
    p.send(a, b"from p")
    world.run(1.0)
    came = {payload(packet): source(packet) for packet in a.take()}
    assert came == {b"from s": a.peer(s).address4, b"from p": wanted}
    a.give(udp((bytes((100, 64, 0, 1)), wanted), b"to p"))
    a.send(s, b"to s")
    world.run(1.0)
    assert (p.heard(), s.heard()) == ([b"to p"], [b"to s"])


def test_two_peers_change_places(world: World) -> None:
    a, b, c = world.node("a"), world.node("b"), world.node("c")
    met(world, a, b)
    met(world, a, c)
    one, other = IPv4Address(a.peer(b).address4), IPv4Address(a.peer(c).address4)
    a.peers = ()
    a.knows(b, address=other)
    a.knows(c, address=one)
    assert (a.peer(b).address4, a.peer(c).address4) == (other.packed, one.packed)
    talk(world, a, b)
    talk(world, a, c)


def test_a_fixed_address_and_nowhere_to_go(world: World) -> None:
    """In a range with two addresses for peers: whoever had the one that is wanted must go."""
    a = world.node("a", network=IPv4Network("100.64.0.0/29"))
    s, p, q = world.node("s"), world.node("p"), world.node("q")
    a.admits("allow")
    for one in (s, p):
        one.knows(a)
        one.send(a, b"x")
        world.run(1.0)
    wanted = a.peer(s).address4
    a.heard()
    a.knows(q, address=IPv4Address(wanted))
    world.run(0.1)
    assert a.peer(q).address4 == wanted
    q.knows(a)
    for one in (s, p, q):
        one.send(a, one.name.encode())
    world.run(6.0)
    came = {payload(packet): source(packet) for packet in a.take()}
    assert came[b"q"] == wanted
    assert len(set(came.values())) == len(came)
    assert a.peer(s) is None


def test_more_peers_than_addresses(world: World, caplog: pytest.LogCaptureFixture) -> None:
    a = world.node("a", network=IPv4Network("100.64.0.0/29"))
    others = [world.node(f"n{number}") for number in range(3)]
    for one in others:
        a.knows(one)
    assert a.state()["known"] == 2
    assert "no address is left in tun.range for the peer n2" in caplog.text
    met(world, others[0], a)
