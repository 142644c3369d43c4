"""Under load: a cookie first, then so many of one address; none of it costs memory, and whoever answers gets in."""

from __future__ import annotations

import pytest

from tests.zignet.peers.hubs import Node, Stranger, World, met
from zignet.noise import COOKIE_SIZE, MacMaker
from zignet.peers import gate as gate_module
from zignet.peers import report

INITIATION, RESPONSE, COOKIE = 1, 2, 3
FREE = 4  # handshakes in a slot, when each takes a "second"
FROM = ("198.51.100.7", 4000)


@pytest.fixture
def b(world: World, monkeypatch: pytest.MonkeyPatch) -> Node:
    spent = gate_module.Gate.spent
    monkeypatch.setattr(gate_module, "FREE_S", float(FREE))
    monkeypatch.setattr(gate_module.Gate, "spent", lambda gate, seconds: spent(gate, 1.0))
    made = world.node("b")
    made.admits("allow")
    world.run(0.25)  # a fresh slot
    return made


def load(b: Node) -> None:
    """Use up what is free in this slot of time."""
    for number in range(FREE):
        b.world.throw(b, Stranger(200 + number).begin(b), ("203.0.113.1", 1000 + number))


def answers(world: World, b: Node) -> list[tuple[int, tuple[str, int]]]:
    return [(one.data[0], one.target) for one in world.sent if one.source == b.address]


def cookied(world: World, b: Node, stranger: Stranger, source: tuple[str, int] = FROM) -> MacMaker:
    """Get a cookie."""
    macs = MacMaker(b.key.x)
    world.throw(b, stranger.begin(b, macs=macs), source)
    cookie = world.sent[-1]
    assert (cookie.data[0], len(cookie.data), cookie.target) == (COOKIE, COOKIE_SIZE, source)
    assert macs.cookie_received(cookie.data, world.now)
    return macs


def test_the_first_in_a_slot_are_answered_and_the_rest_get_cookies(world: World, b: Node) -> None:
    before = b.state()
    load(b)
    assert b.hub.gate.under_load
    assert [kind for kind, _ in answers(world, b)] == [RESPONSE] * FREE
    during = b.state()
    for number in range(50):
        world.throw(b, Stranger(77).begin(b), ("198.51.100.7", 4000 + number))
    assert [kind for kind, _ in answers(world, b)] == [RESPONSE] * FREE + [COOKIE] * 50
    assert b.state() == during
    assert b.dropped() == {"handshake: under load, a cookie was sent": 50}
    world.run(16)
    assert b.state() == before


def test_load_ends_with_its_slot(world: World, b: Node) -> None:
    load(b)
    assert b.hub.gate.under_load
    assert report.counts(b.hub)["under_load"]
    world.run(0.25)
    world.throw(b, Stranger(77).begin(b), FROM)
    assert answers(world, b)[-1] == (RESPONSE, FROM)
    assert not b.hub.gate.under_load
    load(b)
    world.run(1.0)
    assert not b.hub.gate.under_load


def test_handshakes_that_wait_are_load_too(world: World, b: Node) -> None:
    """A node that is busy with data gets to few of them, and spends little."""
    world.throw(b, Stranger(76).begin(b), FROM)
    b.hub.gate.behind()
    assert b.hub.gate.under_load
    world.throw(b, Stranger(77).begin(b), FROM)
    assert [kind for kind, _ in answers(world, b)] == [RESPONSE, COOKIE]
    world.run(0.25)
    world.throw(b, Stranger(78).begin(b), FROM)
    assert answers(world, b)[-1] == (RESPONSE, FROM)


def test_mac2_is_accepted_from_where_the_cookie_went(world: World, b: Node) -> None:
    load(b)
    stranger = Stranger(77)
    macs = cookied(world, b, stranger)
    pending = b.hub.pending
    for elsewhere in (("198.51.100.8", 4000), ("198.51.100.7", 4001)):
        world.throw(b, stranger.begin(b, macs=macs), elsewhere)
        assert answers(world, b)[-1] == (COOKIE, elsewhere)
    assert b.hub.pending == pending
    world.throw(b, stranger.begin(b, macs=macs), FROM)
    assert answers(world, b)[-1] == (RESPONSE, FROM)
    assert b.hub.pending == pending + 1
    assert b.state()["limits"] == 1


def test_a_cookie_expires(world: World, b: Node) -> None:
    load(b)
    stranger = Stranger(77)
    macs = cookied(world, b, stranger)
    message = stranger.begin(b, macs=macs)
    world.run(241)
    load(b)
    world.throw(b, message, FROM)
    assert answers(world, b)[-1] == (COOKIE, FROM)


def test_so_many_of_one_address(world: World, b: Node) -> None:
    """Five at once, then 20 a second, whoever they are; another address has its own."""
    load(b)
    strangers = [Stranger(60 + number) for number in range(12)]
    macs = [cookied(world, b, one) for one in strangers]
    other = cookied(world, b, Stranger(50), ("198.51.100.9", 1))
    world.sent.clear()
    for one, maker in zip(strangers, macs, strict=True):
        world.throw(b, one.begin(b, macs=maker), FROM)
    assert [kind for kind, _ in answers(world, b)] == [RESPONSE] * 5
    assert b.dropped()["handshake: too many of one address"] == 7
    world.throw(b, Stranger(50).begin(b, macs=other, stamp=1 << 60), ("198.51.100.9", 1))
    assert answers(world, b)[-1] == (RESPONSE, ("198.51.100.9", 1))
    assert b.state()["limits"] == 2
    world.run(0.05)
    world.throw(b, strangers[5].begin(b, macs=macs[5]), FROM)
    assert answers(world, b)[-1] == (RESPONSE, FROM)


def test_wrong_mac1_gets_no_cookie(world: World, b: Node) -> None:
    load(b)
    world.sent.clear()
    before = b.state()
    message = Stranger(77).begin(b)
    for number in range(100):
        wrong = bytearray(message)
        wrong[188 + number % 16] ^= number + 1
        world.throw(b, bytes(wrong), FROM)
    assert world.sent == []
    assert b.state() == before


def flood(world: World, b: Node, seconds: float) -> None:
    """Initiations from everywhere, all day; what is answered to them is lost."""
    message = Stranger(99).begin(b)

    def more() -> None:
        for number in range(FREE + 2):
            world.throw(b, message, (f"203.0.113.{number}", 5))
        if world.now < end:
            world.clock.at(world.now + 0.02, more)

    end = world.now + seconds
    more()


def test_a_peer_gets_in_under_load(world: World, b: Node) -> None:
    """Its first initiation is answered by a cookie, its second bears mac2."""
    a = world.node("a")
    a.knows(b)
    flood(world, b, 20)
    a.send(b, b"through")
    world.run(4.9)
    assert [one.data[0] for one in world.sent if one.target == a.address] == [COOKIE]
    assert b.heard() == []
    world.run(1.0)
    assert b.heard() == [b"through"]
    assert len(world.of(INITIATION, a)) == 2
    assert len(world.of(RESPONSE, b, a)) == 1


def test_an_initiator_may_be_the_one_under_load(world: World, b: Node) -> None:
    """Then it asks for a cookie before it looks at a response; the next one bears mac2."""
    a = world.node("a")
    a.knows(b)
    b.knows(a)
    flood(world, b, 20)
    b.send(a, b"out of the flood")
    world.run(4.9)
    assert [one.data[0] for one in world.sent if one.target == a.address] == [INITIATION, COOKIE]
    world.run(1.0)
    assert a.heard() == [b"out of the flood"]
    assert b.connected(a)


def test_established_sessions_do_not_notice(world: World, b: Node) -> None:
    a = world.node("a")
    met(world, a, b)
    flood(world, b, 3)
    sent = []
    for number in range(20):
        sent.append(b"%d" % number)
        a.send(b, sent[-1])
        world.run(0.1)
    world.run(1.0)
    assert b.heard() == sent


def test_a_cookie_for_nothing(world: World, b: Node) -> None:
    """Forged, replayed, or for another: ignored."""
    a = world.node("a")
    a.knows(b)
    flood(world, b, 2)
    a.send(b, b"x")
    world.run(1.0)
    (cookie,) = world.of(COOKIE, b, a)
    before = a.state()
    for data in (cookie.data, cookie.data[:4] + bytes(4) + cookie.data[8:], bytes((3,)) + bytes(63)):
        world.throw(a, data, b.address)
    assert a.dropped()["a cookie for nothing"] == 3
    assert a.state() == before


def test_a_cookie_is_for_one_address(world: World, b: Node) -> None:
    """Who has moved since gets another."""
    a = world.node("a")
    a.knows(b)
    flood(world, b, 30)
    a.send(b, b"x")
    world.run(1.0)
    a.move(77)
    world.run(4.5)
    cookies = world.of(COOKIE, b)
    assert [one.target for one in cookies if one.target[0].startswith("192.")] == [
        ("192.0.2.2", 51830),
        ("192.0.2.77", 51830),
    ]
    world.run(5.5)
    assert b.heard() == [b"x"]


def test_a_response_that_comes_late_is_no_load(world: World, b: Node) -> None:
    """What is for no handshake of ours is dropped before anything is computed, or counted."""
    load(b)
    world.sent.clear()
    for _ in range(10):
        world.throw(b, bytes((2, 1, 0, 0)) + bytes(100), FROM)
    assert world.sent == []
    assert b.dropped() == {"handshake: a response to nothing": 10}
