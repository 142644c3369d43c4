"""Where datagrams go, and how large they are: moves, replays from elsewhere, black holes, what the kernel refuses."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from tests.zignet.peers.hubs import DELAY, Datagram, Node, World, elsewhere, met
from zignet.peers import report

pytestmark = pytest.mark.packet_path

INITIATION, RESPONSE, DATA = 1, 2, 4
LURKER = ("198.51.100.66", 6666)
SEALED = 32


@pytest.fixture
def pair(world: World) -> tuple[Node, Node]:
    """Two nodes that have met, and have found out what their path carries."""
    a, b = world.node("a"), world.node("b")
    met(world, a, b)
    world.run(12)
    world.sent.clear()
    return a, b


def to(world: World, place: tuple[str, int]) -> list[Datagram]:
    return [one for one in world.sent if one.target == place]


# --- moves


def test_a_real_move(world: World, caplog: pytest.LogCaptureFixture, pair: tuple[Node, Node]) -> None:
    """One data message from there, a challenge, its answer: no handshake, and nothing is lost."""
    a, b = pair
    old = a.address
    a.move(77)
    with caplog.at_level(logging.INFO, "zignet.peers"):
        a.send(b, b"moved")
        world.run(1.0)
    assert b.heard() == [b"moved"]
    assert b.link(a).address == a.address
    assert f"a: now at 192.0.2.77:51830, before at {old[0]}:{old[1]}" in caplog.text
    b.send(a, b"follows")
    world.run(1.0)
    assert a.heard() == [b"follows"]
    assert world.of(INITIATION) == []
    assert report.row(b.hub, b.peer(a))["path"] == "192.0.2.77:51830"


def test_another_port_is_a_move_too(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    a.move(1, port=1024)
    a.send(b, b"x")
    world.run(1.0)
    assert b.link(a).address == ("192.0.2.1", 1024)


def test_in_the_midst_of_a_transfer(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    up, down = [], []
    for number in range(100):
        if number % 30 == 10:
            a.move(50 + number)
        up.append(b"up %d" % number)
        a.send(b, up[-1])
        down.append(b"down %d" % number)
        b.send(a, down[-1])
        world.run(0.02)
    world.run(1.0)
    assert b.heard() == up
    arrived = a.heard()
    assert len(arrived) > 60  # what was on its way to an address that is no more is lost
    assert [one for one in down if one in set(arrived)] == arrived
    assert world.of(INITIATION) == []


def test_both_move_at_once(world: World, pair: tuple[Node, Node]) -> None:
    """Neither hears the other; the endpoints of the configuration are no help; the silence is noticed, in vain."""
    a, b = pair
    a.knows(b, "192.0.2.88:51830")
    a.move(77)
    b.move(88)
    a.send(b, b"lost")
    world.run(16)
    assert len(world.of(INITIATION, a)) >= 1
    world.run(6)  # the second attempt goes to the endpoint
    a.send(b, b"found again")
    world.run(1.0)
    assert b.heard()[-1] == b"found again"
    assert b.link(a).address == a.address


def test_a_replay_from_elsewhere_moves_nothing(world: World, pair: tuple[Node, Node]) -> None:
    """Somebody copies datagrams, and is faster than the originals; he gets challenges that he can't answer."""
    a, b = pair
    path = b.link(a).address

    def copied(one: Datagram) -> tuple[Datagram, ...]:
        if one.target == b.address and one.data[0] == DATA:
            return (replace(elsewhere(one, LURKER), delay=DELAY / 2), one)
        return (one,)

    world.fate = copied
    for number in range(100):
        a.send(b, b"%d" % number)
        b.send(a, b"to a")
        world.run(0.1)
        assert b.link(a).address == path
    world.run(1.0)
    assert b.heard() == [b"%d" % number for number in range(100)]
    assert a.heard() == [b"to a"] * 100
    challenges = to(world, LURKER)
    assert 10 <= len(challenges) <= 21  # at most one in 0.5 s
    assert all(len(one.data) == 56 for one in challenges)
    assert b.state()["strange"] <= 1


def test_an_old_datagram_from_elsewhere_says_nothing(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    a.send(b, b"x")
    world.run(1.0)
    message = world.of(DATA, a, b)[-1]
    before = b.state()
    for _ in range(10):
        world.throw(b, message.data, LURKER)
    assert to(world, LURKER) == []
    assert b.state() == before


def test_no_more_than_three_times_what_came(world: World, pair: tuple[Node, Node]) -> None:
    """Whatever the lurker redirects, also challenges, which are answered to where they came from."""
    a, b = pair
    stolen = {"received": 0}

    def all_elsewhere(one: Datagram) -> tuple[Datagram, ...]:
        if one.target == b.address:
            stolen["received"] += len(one.data)
            return (elsewhere(one, LURKER),)
        return (one,)

    world.fate = all_elsewhere
    for number in range(50):
        a.send(b, b"%d" % number)
        world.run(0.2)
        if number % 10 == 5:
            a.hub.ping(a.link(b))
        assert sum(len(one.data) for one in to(world, LURKER)) <= 3 * stolen["received"]
    assert to(world, LURKER)


def test_an_answer_counts_only_from_where_the_challenge_went(world: World, pair: tuple[Node, Node]) -> None:
    """The lurker passes challenges on to the peer, whose answer comes from the path in use."""
    a, b = pair
    path = b.link(a).address

    def lurk(one: Datagram) -> tuple[Datagram, ...]:
        if one.target == LURKER:
            return (replace(one, target=a.address),)
        if one.target == b.address and one.data[0] == DATA and len(one.data) < 76:
            return (elsewhere(one, LURKER),)
        return (one,)

    world.fate = lurk
    for number in range(20):
        a.send(b, b"%d" % number)
        world.run(0.3)
    assert len(world.of(DATA, a, b)) > 20
    assert b.link(a).address == path


def test_a_relay_of_everything_is_a_path(world: World, pair: tuple[Node, Node]) -> None:
    """Who carries both ways is on the way, and harms nobody: what he carries is sealed. (NATs do the same.)"""
    a, b = pair

    def relayed(one: Datagram) -> tuple[Datagram, ...]:
        if one.target == b.address:
            return (elsewhere(one, LURKER),)
        if one.target == LURKER:
            return (replace(one, target=a.address, source=b.address),)
        return (one,)

    world.fate = relayed
    a.send(b, b"x")
    world.run(1.0)
    assert b.link(a).address == LURKER
    world.fate = lambda one: (one,)
    a.send(b, b"the way back")
    world.run(1.0)
    assert b.link(a).address == a.address


def test_a_handshake_from_elsewhere(world: World, pair: tuple[Node, Node]) -> None:
    """Its first message comes from another place than its initiation: the path that stands is kept."""
    a, b = pair
    path = b.link(a).address
    world.run(110)

    def fate(one: Datagram) -> tuple[Datagram, ...]:
        if one.data[0] == INITIATION:
            return (elsewhere(one, LURKER),)
        if one.target == LURKER:
            return (replace(one, target=a.address),)
        return (one,)

    world.fate = fate
    a.send(b, b"renew")
    world.run(2.0)
    assert (a.hub.handshakes, b.hub.handshakes) == (2, 2)
    assert b.link(a).address == path
    b.send(a, b"straight")
    world.run(1.0)
    assert b"straight" in a.heard()


@pytest.mark.parametrize("again", [False, True])
def test_the_first_message_of_a_session_from_elsewhere(world: World, again: bool) -> None:
    """Copied on the way, and faster than the original. The path is where the handshake came from, and where it was."""
    a, b = world.node("a"), world.node("b")
    if again:
        met(world, a, b)
        world.run(121)
        b.take()
    else:
        a.knows(b)
        b.knows(a)

    def fate(one: Datagram) -> tuple[Datagram, ...]:
        copy = replace(elsewhere(one, LURKER), delay=DELAY / 2)
        return (copy, one) if one.target == b.address and one.data[0] == DATA else (one,)

    world.fate = fate
    a.send(b, b"x")
    world.run(0.3)
    assert b.connected(a)
    assert b.link(a).address == a.address
    b.send(a, b"straight")
    world.run(1.0)
    assert a.heard() == [b"straight"]


# --- how large


def test_the_search_finds_what_the_path_carries(world: World) -> None:
    a, b = world.node("a"), world.node("b")
    world.fate = lambda one: () if len(one.data) > 1392 else (one,)
    met(world, a, b)
    assert a.link(b).paths.mtu == 1232  # until it is known
    world.run(20)
    assert a.link(b).paths.mtu == b.link(a).paths.mtu == 1392
    assert a.link(b).room == 1392 - SEALED
    assert report.row(a.hub, a.peer(b))["path_mtu"] == 1392
    lost = [one for one in world.sent if len(one.data) > 1392]
    assert {len(one.data) for one in lost} == {1472, 1452, 1432, 1420}
    world.sent.clear()
    a.send(b, b"x" * 1350)
    a.send(b, b"y" * 1400)  # in pieces
    world.run(1.0)
    assert b.heard() == [b"x" * 1350, b"y" * 1400]
    assert max(len(one.data) for one in world.sent) <= 1392


def test_a_black_hole_that_opens_later(world: World, pair: tuple[Node, Node]) -> None:
    """What is in force is tried again once a minute while data is sent; in vain, and the path is back at its start."""
    a, b = pair
    assert a.link(b).paths.mtu == 1472
    world.fate = lambda one: () if len(one.data) > 1300 else (one,)
    for _ in range(140):
        a.send(b, b"x" * 1400)
        a.send(b, b"small")
        b.send(a, b"small")
        world.run(1.0)
    assert a.link(b).paths.mtu in (1280, 1232)
    b.heard()
    a.send(b, b"x" * 1400)
    world.run(1.0)
    assert b.heard() == [b"x" * 1400]


def test_the_own_interface_shrinks(world: World, pair: tuple[Node, Node]) -> None:
    """The kernel refuses (EMSGSIZE): that packet is lost, and from the next turn on they are smaller."""
    a, b = pair
    a.transport.interface = 1300
    a.send(b, b"x" * 1400)
    assert a.transport.dropped["too large for the path"] == 1
    world.run(0.1)
    assert a.link(b).paths.mtu <= 1300
    a.send(b, b"y" * 1400)
    world.run(1.0)
    assert b.heard() == [b"y" * 1400]
    world.run(20)
    assert a.link(b).paths.mtu == 1300
    assert a.connected(b)


def test_the_interface_of_one_peer_is_not_that_of_another(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    c = world.node("c")
    met(world, a, c)
    world.run(12)
    a.hub._too_large(b.address, 1400)
    a.hub._too_large(("203.0.113.1", 9), 600)  # nobody's
    world.run(20)
    assert a.link(c).paths.mtu == 1472
    assert a.connected(b)


def test_an_underlay_on_which_ipv6_could_not_be(world: World) -> None:
    """Datagrams of 1,000 bytes, and packets of 1,420 in them, in pieces; once that is found out, none is lost."""
    a, b = world.node("a"), world.node("b")
    world.fate = lambda one: () if len(one.data) > 1000 else (one,)
    met(world, a, b)
    a.transport.interface = b.transport.interface = 1000
    for v6 in (False, True):
        a.send(b, b"found out" * 140, v6)
        world.run(1.0)
        b.heard()
        a.send(b, b"z" * 1380, v6)
        world.run(1.0)
        assert b.heard() == [b"z" * 1380]


def test_silence_forgets_the_size(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    world.fate = lambda one: ()
    a.send(b, b"x")
    world.run(16)
    assert a.link(b).paths.mtu == 1232
    assert a.link(b).room == 1232 - SEALED
    world.fate = lambda one: (one,)
    world.run(20)
    assert a.link(b).paths.mtu == 1472


def test_silence_asks_where_the_peer_is(world: World, pair: tuple[Node, Node]) -> None:
    """It has moved without a word, and its new address is known to the configuration's name only."""
    a, b = pair
    b.move(88)
    a.send(b, b"lost")
    world.run(14)
    assert world.of(INITIATION, a) == []
    world.run(2)
    assert len(world.of(INITIATION, a)) == 1


def test_a_restart_is_noticed(world: World, pair: tuple[Node, Node]) -> None:
    """By who sends data to it, after 15 s of silence; what was sent meanwhile is lost."""
    a, b = pair
    b.restart()
    for _ in range(20):
        a.send(b, b"x")
        world.run(1.0)
    assert a.hub.handshakes == 2
    assert 1 <= len(b.heard()) <= 5
    assert b.dropped()["no such session"] >= 14


def test_both_restart(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    a.restart()
    b.restart()
    a.send(b, b"x")
    b.send(a, b"y")
    world.run(1.0)
    assert (a.heard(), b.heard()) == ([b"y"], [b"x"])


def test_one_restarts_with_its_clock_a_year_back(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    world.wall_offset = -365 * 86400
    a.restart()
    a.send(b, b"from the past")
    world.run(1.0)
    assert b.heard() == [b"from the past"]
    for _ in range(3):
        world.run(121)
        a.send(b, b"and on")
        world.run(1.0)
        assert b.heard() == [b"and on"]
    assert not any("seen before" in reason for reason in b.dropped())
