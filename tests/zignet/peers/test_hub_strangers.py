"""Who knocks: what is not authentic, or not admitted, costs no memory; who is admitted gets an address in the end."""

from __future__ import annotations

import logging
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from tests.zignet.peers.hubs import DELAY, OWN4, Datagram, Node, Stranger, World, met
from zignet.identity import PublicKey
from zignet.noise import HandshakeError, MacMaker, Responder, Suite
from zignet.peers import gate as gate_module
from zignet.peers import hub as hub_module
from zignet.wire import seal

INITIATION, RESPONSE, COOKIE, DATA = 1, 2, 3, 4
FROM = ("198.51.100.7", 4000)


def negated(key: PublicKey) -> PublicKey:
    return PublicKey(key.x, not key.odd)


@pytest.fixture
def b(world: World) -> Node:
    """A node, with nobody in its configuration."""
    return world.node("b")


def knock(b: Node, stranger: Stranger, source: tuple[str, int] = FROM, **how: object) -> bytes:
    """An initiation arrives; it."""
    message = stranger.begin(b, **how)  # type: ignore[arg-type]
    b.world.throw(b, message, source)
    return message


# --- denied


def test_a_stranger_that_is_not_admitted_costs_nothing(world: World, b: Node) -> None:
    before = b.state()
    for number in range(50):
        knock(b, Stranger(number.to_bytes(2, "big") * 16), ("198.51.100.7", number + 1))
        world.run(0.01)
    assert b.state() == before
    assert world.sent == []
    assert b.dropped() == {"handshake: not admitted": 50}


def test_a_denied_one_of_many_that_are_admitted(world: World, b: Node) -> None:
    bad, good = world.node("bad"), world.node("good")
    b.admits("allow", deny=[bad])
    before = b.state()
    for one in (bad, good):
        one.knows(b)
        one.send(b, one.name.encode())
    world.run(1.0)
    assert b.heard() == [b"good"]
    assert b.state()["stored"] == before["stored"] + 1
    assert b.peer(bad) is None
    assert world.of(RESPONSE, b, bad) == []


# --- admitted


@pytest.mark.parametrize("how", ["allow", "default"])
def test_a_stranger_gets_an_address_with_its_first_data(
    world: World, caplog: pytest.LogCaptureFixture, b: Node, how: str
) -> None:
    s = world.node("s")
    if how == "allow":
        b.admits(allow=[s])
    else:
        b.admits("allow")
    before = b.state()
    s.knows(b)
    s.send(b, b"hello")
    world.run(DELAY)  # the initiation is there, and the response on its way
    during = b.state()
    assert world.of(RESPONSE, b, s)
    changed = {name: during[name] - before[name] for name in before if during[name] != before[name]}
    assert changed == {"pending": 1, "tunnels": 1, "openings": 1, "timers": 1}
    assert b.peer(s) is None
    with caplog.at_level(logging.INFO, "zignet.peers"):
        world.run(1.0)
    assert b.heard() == [b"hello"]
    after = b.state()
    assert (after["known"], after["addresses"], after["stored"], after["pending"]) == (1, 2, 1, 0)
    assert b.peer(s).address4 == bytes((100, 64, 0, 2))
    assert f"{s.key.name} has connected, and is 100.64.0.2 here" in caplog.text
    b.send(s, b"welcome")
    world.run(1.0)
    assert s.heard() == [b"welcome"]


def test_it_keeps_its_address(world: World, b: Node) -> None:
    first, second = world.node("first"), world.node("second")
    b.admits("allow")
    for one in (first, second):
        one.knows(b)
        one.send(b, b"x")
        world.run(1.0)
    address = b.peer(second).address4
    b.restart()
    for one in (second, first):
        one.restart()
        one.send(b, b"y")
        world.run(1.0)
    assert b.peer(second).address4 == address


def test_an_initiation_alone_is_kept_for_15_seconds(world: World, b: Node) -> None:
    b.admits("allow")
    before = b.state()
    for number in range(10):
        knock(b, Stranger(number + 50))
    assert b.hub.pending == 10
    world.run(14.9)
    assert b.hub.pending == 10
    world.run(0.2)
    assert b.state() == before


def test_4096_initiations_are_kept() -> None:
    assert hub_module.MOST_PENDING == 4_096


def test_the_oldest_initiation_makes_room(world: World, monkeypatch: pytest.MonkeyPatch, b: Node) -> None:
    monkeypatch.setattr(hub_module, "MOST_PENDING", 8)
    b.admits("allow")
    before = b.state()
    strangers = [Stranger(number + 50) for number in range(20)]
    for number, one in enumerate(strangers):
        knock(b, one, index=number + 1)
        world.run(0.01)
        assert b.hub.pending <= 8
    full = b.state()
    assert (full["pending"], full["tunnels"], full["openings"]) == (8, 8, 8)
    assert full["timers"] == before["timers"] + 8
    assert {link.peer.key for link in b.hub._pending.values()} == {one.key for one in strangers[-8:]}
    world.run(16)
    assert b.state() == before


def test_who_had_to_make_room_is_let_in_later(world: World, monkeypatch: pytest.MonkeyPatch, b: Node) -> None:
    monkeypatch.setattr(hub_module, "MOST_PENDING", 8)
    b.admits("allow")
    s = world.node("s")
    s.knows(b)
    s.send(b, b"at last")
    world.run(DELAY)
    for number in range(8):
        knock(b, Stranger(number + 50))
    world.run(3.0)
    assert b.heard() == []
    assert b.peer(s) is None
    world.run(30.0)
    s.send(b, b"again")
    world.run(1.0)
    assert b.heard() == [b"again"]


def test_two_initiations_of_one_stranger(world: World, b: Node) -> None:
    """The first response was lost: the newest session wins, the other one expires."""
    b.admits("allow")
    s = world.node("s")
    s.knows(b)
    lost = iter([True])
    world.fate = lambda one: () if one.data[0] == RESPONSE and next(lost, False) else (one,)
    s.send(b, b"hello")
    world.run(6.0)
    assert b.heard() == [b"hello"]
    assert b.state()["known"] == 1
    world.run(15.0)
    assert b.hub.pending == 0
    s.send(b, b"still there")
    world.run(1.0)
    assert b.heard() == [b"still there"]


def test_two_sessions_of_one_stranger_both_become_valid(world: World, b: Node) -> None:
    """The later one wins, and nothing is left of the other."""
    b.admits("allow")
    stranger = Stranger(77)
    sessions = []
    for index in (11, 12):
        knock(b, stranger, index=index)
        stranger.initiator.finish(world.sent[-1].data)
        sessions.append((stranger.initiator.keys.send, stranger.initiator.remote_index))
    assert b.hub.pending == 2
    for number, (key, index) in enumerate(sessions):
        world.throw(b, seal(Suite.CHACHA, bytes(key), index, 0, bytes(4)), FROM)
        state = b.state()
        assert (state["known"], state["links"], state["tunnels"] + number, state["stored"]) == (1, 1, 2, 1)
    assert b.link(stranger).tunnel.sending.remote_index == 12
    world.run(16)
    state = b.state()
    assert (state["pending"], state["tunnels"], state["openings"]) == (0, 1, 1)


def test_a_handshake_that_fails_leaves_no_link(
    world: World, monkeypatch: pytest.MonkeyPatch, b: Node
) -> None:
    """A peer of the configuration, whose ephemeral key is no good."""

    def answer(*_: object) -> bytes:
        raise HandshakeError("a public key of low order")

    monkeypatch.setattr(Responder, "answer", answer)
    peer = Stranger(77)
    b.knows(peer.key, None)
    before = b.state()
    knock(b, peer)
    assert b.dropped() == {"handshake: a public key of low order": 1}
    assert (b.state(), world.sent) == (before, [])


def test_no_address_is_left(world: World) -> None:
    """In a range with two addresses for peers, both of them taken by who is there."""
    b = world.node("b", network=IPv4Network("100.64.0.0/29"))
    b.admits("allow")
    others = [world.node(name) for name in ("s1", "s2", "s3")]
    for one in others:
        one.knows(b)
        one.send(b, one.name.encode())
        world.run(1.0)
    assert b.heard() == [b"s1", b"s2"]
    assert b.dropped()["no address is left for a new peer"] == 1
    assert b.dropped()["not admitted"] >= 1
    assert b.state()["stored"] == 2
    world.run(30)
    assert b.state()["openings"] == 2
    others[0].stop()
    world.run(900)
    others[2].send(b, b"my turn")
    world.run(1.0)
    assert b.heard() == [b"my turn"]


# --- what changes between the initiation and the first message


def test_denied_meanwhile(world: World, b: Node) -> None:
    s = world.node("s")
    s.knows(b)
    b.admits("allow")
    s.send(b, b"hello")
    world.run(DELAY)
    b.admits("deny")
    world.run(1.0)
    assert b.heard() == []
    assert b.peer(s) is None
    assert b.state()["stored"] == b.state()["pending"] == b.state()["openings"] == 0


def test_configured_meanwhile(world: World, tmp_path: Path, b: Node) -> None:
    """Its session was made without the pre-shared key that it must now have."""
    s = world.node("s")
    s.knows(b)
    b.admits("allow")
    s.send(b, b"hello")
    world.run(DELAY)
    b.knows(s, psk_file=psk(tmp_path, "one"))
    world.run(1.0)
    assert b.heard() == []
    assert b.peer(s).settings is not None
    s.knows(b, psk_file=psk(tmp_path, "one"))
    world.run(20)
    s.send(b, b"with the key")
    world.run(1.0)
    assert b.heard() == [b"with the key"]
    assert b.peer(s).settings.name == "s"


# --- whose key it is


def test_somebody_elses_key(world: World, b: Node) -> None:
    """The payload names a key that is not the one of the handshake: a stranger's, or a known peer's."""
    a = world.node("a")
    met(world, a, b)
    a.stop()
    world.sent.clear()
    b.admits("allow")
    before = b.state()
    for who, claims in (
        (Stranger(77), a.key.ed),
        (Stranger(77), b.key.ed),
        (Stranger(a.secret), Stranger(5).key.ed),
    ):
        knock(b, who, claims=claims)
        world.run(0.1)
    assert b.dropped()["handshake: a key that is not its own"] == 3
    assert b.state() == before
    assert world.sent == []


@pytest.mark.parametrize("claims", [bytes(32), b"\1" + bytes(31), b"\xff" * 32, b"\2" + bytes(31)])
def test_what_is_no_key(world: World, b: Node, claims: bytes) -> None:
    b.admits("allow")
    before = b.state()
    knock(b, Stranger(77), claims=claims)
    assert b.dropped()["handshake: a key that is not its own"] == 1
    assert (b.state(), world.sent) == (before, [])


def test_our_own_key(world: World, b: Node) -> None:
    b.admits("allow")
    before = b.state()
    for claims in (b.key.ed, negated(b.key).ed):
        knock(b, Stranger(b.secret), claims=claims)
    assert b.dropped()["handshake: a key that is not its own"] == 2
    assert (b.state(), world.sent) == (before, [])


def test_our_own_key_is_no_peer(world: World, caplog: pytest.LogCaptureFixture, b: Node) -> None:
    for key in (b.key, negated(b.key)):
        b.knows(key, "192.0.2.2:51830", name="myself")
        assert "this node's own key" in caplog.text
        assert b.state()["known"] == 0
        caplog.clear()


def test_a_key_and_its_negation_are_one_peer(world: World, b: Node) -> None:
    a = world.node("a")
    a.knows(b)
    b.knows(negated(a.key), None, name="a")
    a.send(b, b"hello")
    world.run(1.0)
    assert b.heard() == [b"hello"]
    assert b.state()["known"] == 1
    b.admits("allow")
    knock(b, Stranger(a.secret), claims=negated(a.key).ed, device=a.device_id, stamp=1 << 60)
    assert b.link(a).tunnel.next is not None
    assert b.state()["known"] == 1
    assert b.hub.pending == 0


# --- pre-shared keys


def psk(directory: Path, name: str) -> Path:
    path = directory / f"{name}.psk"
    path.write_text((name.encode() * 32)[:32].hex() + "\n")
    path.chmod(0o600)
    return path


def test_the_same_psk(world: World, tmp_path: Path, b: Node) -> None:
    met(world, world.node("a"), b, psk_file=psk(tmp_path, "one"))


@pytest.mark.parametrize(("here", "there"), [("one", "two"), ("one", None), (None, "two")])
def test_different_psks(world: World, tmp_path: Path, b: Node, here: str | None, there: str | None) -> None:
    """Each takes the other's message for one that is not authentic, and the sender is told in the end."""
    a = world.node("a")
    a.knows(b, psk_file=psk(tmp_path, here) if here else None)
    b.knows(a, psk_file=psk(tmp_path, there) if there else None)
    before = b.state()
    a.send(b, b"hello")
    world.run(92)
    assert len(a.take()) == 1
    assert not a.connected(b)
    assert b.heard() == []
    assert a.dropped()["handshake: a part of the message does not open"] == 18
    world.run(20)
    assert b.state() == before


def test_a_psk_that_cannot_be_read_is_not_left_out(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture, b: Node
) -> None:
    a = world.node("a")
    path = psk(tmp_path, "one")
    a.knows(b, psk_file=path)
    b.knows(a)
    path.unlink()
    a.send(b, b"hello")
    world.run(20)
    assert not a.connected(b)
    assert "one.psk" in caplog.text


def test_a_psk_that_a_reload_brings(world: World, tmp_path: Path, b: Node) -> None:
    """Sessions made from then on have it, also those of a link that stands."""
    a = world.node("a")
    met(world, a, b)
    b.knows(a, psk_file=psk(tmp_path, "one"))
    world.run(121)
    a.send(b, b"old session")
    world.run(20)
    assert b.heard() == [b"old session"]
    assert a.dropped()["handshake: a part of the message does not open"] >= 3
    a.knows(b, psk_file=psk(tmp_path, "one"))
    world.run(6)
    a.send(b, b"new session")
    world.run(1)
    assert b.heard() == [b"new session"]
    assert a.hub.handshakes == 2


# --- replays


def replay(world: World, b: Node, message: Datagram, source: tuple[str, int] = FROM) -> None:
    world.throw(b, message.data, source)
    world.run(0.1)


def test_a_replayed_initiation(world: World, b: Node) -> None:
    a = world.node("a")
    met(world, a, b)
    (recorded,) = world.of(INITIATION)
    world.sent.clear()
    before = b.state()
    for _ in range(5):
        replay(world, b, recorded)
    assert b.dropped()["handshake: the initiation was seen before, or a newer one was"] == 5
    assert b.state() == before
    assert world.sent == []
    a.send(b, b"undisturbed")
    world.run(1.0)
    assert b.heard() == [b"undisturbed"]


def test_a_replay_after_the_responder_was_restarted(world: World, b: Node) -> None:
    """It can't know any more: it answers, to no avail, and forgets. Who is meant is not kept from coming."""
    a = world.node("a")
    met(world, a, b)
    (recorded,) = world.of(INITIATION)
    b.restart()
    before = b.state()
    replay(world, b, recorded)
    replay(world, b, recorded)
    assert not b.connected(a)
    world.run(16)
    assert b.state() == before
    replay(world, b, recorded)
    a.restart()
    a.send(b, b"the real one")
    world.run(1.0)
    assert b.heard() == [b"the real one"]
    replay(world, b, recorded)
    a.send(b, b"and still")
    world.run(1.0)
    assert b.heard() == [b"and still"]
    assert b.link(a).paths.address == a.address


def test_a_strangers_initiation_replayed(world: World, b: Node) -> None:
    b.admits("allow")
    before = b.state()
    message = knock(b, Stranger(77))
    for _ in range(20):
        world.throw(b, message, FROM)
    assert b.hub.pending <= 21
    assert b.state()["stored"] == before["stored"]
    world.run(16)
    assert b.state() == before


def test_initiations_that_come_too_fast(world: World, b: Node) -> None:
    """A peer that may come in makes us compute no more than fifty times a second."""
    peer = Stranger(77)
    b.knows(peer.key, None)
    for _ in range(10):
        knock(b, peer)
    assert b.dropped()["handshake: initiations come too fast"] == 9
    assert b.state()["tunnels"] == 1
    world.run(0.03)
    knock(b, peer)
    assert b.dropped()["handshake: initiations come too fast"] == 9


# --- garbage


GARBAGE = [b"", b"\0", b"\1", b"\4", b"\5" * 100, bytes(220), bytes(104), bytes(64), b"\xff" * 1500]


def test_what_is_not_a_message(world: World, b: Node) -> None:
    before = b.state()
    for data in GARBAGE[1:]:
        for size in (len(data), 35, 36, 64, 104, 220, 1472):
            for kind in range(8):
                world.throw(b, bytes((kind,)) + data[1:size].ljust(size - 1, b"\0"))
    assert (b.state(), world.sent) == (before, [])
    assert len(b.dropped()) < 12


@pytest.mark.parametrize("kind", [INITIATION, RESPONSE, DATA, COOKIE])
def test_every_message_cut_off_at_every_byte(
    world: World, monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    a, b, message = recorded(world, monkeypatch, kind)
    before = a.state(), b.state()
    world.sent.clear()
    target = next(node for node in (a, b) if node.address == message.target)
    for size in range(1, len(message.data)):
        world.throw(target, message.data[:size], message.source)
    assert (a.state(), b.state()) == before
    assert world.sent == []


@pytest.mark.parametrize("kind", [INITIATION, RESPONSE, DATA, COOKIE])
def test_every_message_with_a_bit_changed(world: World, monkeypatch: pytest.MonkeyPatch, kind: int) -> None:
    """One bit of each byte. The pair goes on as if nothing had come."""
    a, b, message = recorded(world, monkeypatch, kind)
    before = a.state(), b.state()
    world.sent.clear()
    target = next(node for node in (a, b) if node.address == message.target)
    mac2 = 16 if kind in (INITIATION, RESPONSE) else 0  # looked at under load only
    for at in range(len(message.data) - mac2):
        changed = bytearray(message.data)
        changed[at] ^= 1 << at % 8
        world.throw(target, bytes(changed), message.source)
        world.run(0.001)
    assert (a.state(), b.state()) == before
    assert world.sent == []
    assert a.heard() == b.heard() == []


def recorded(world: World, monkeypatch: pytest.MonkeyPatch, kind: int) -> tuple[Node, Node, Datagram]:
    """Two nodes, and a message of one to the other that is still on its way. It never arrives."""
    monkeypatch.setattr(gate_module, "FREE_S", 0.0 if kind == COOKIE else 1e9)
    a, b = world.node("a"), world.node("b")
    a.knows(b)
    b.knows(a)
    world.fate = lambda one: () if one.data[0] == kind else (one,)
    a.send(b, b"x")
    world.run(0.2)
    return a, b, world.of(kind)[-1]


@pytest.mark.parametrize("kind", [INITIATION, RESPONSE, COOKIE, DATA])
def test_a_thousand_of_each_from_everywhere(world: World, b: Node, kind: int) -> None:
    """Random bytes of the right length and type, to a node that admits everybody."""
    size = {INITIATION: 220, RESPONSE: 104, COOKIE: 64, DATA: 1400}[kind]
    b.admits("allow")
    before = b.state()
    for number in range(1000):
        head = bytes((kind, 1, 0, 0)) if kind < COOKIE else bytes((kind, 0, 0, 0))
        body = number.to_bytes(4, "little") * ((size - 4) // 4)
        world.throw(b, head + body, (f"198.51.{number % 256}.7", 1 + number))
    assert (b.state(), world.sent) == (before, [])
    assert sum(b.dropped().values()) == 1000
    assert len(b.dropped()) == 1


def test_a_forged_response_does_not_end_the_handshake(world: World, b: Node) -> None:
    a = world.node("a")
    met(world, a, b)
    (answer,) = world.of(RESPONSE)
    world.fate = lambda one: (replace(one, delay=0.2),)
    world.run(121)
    a.send(b, b"renew")
    world.run(0.1)
    index = a.link(b).tunnel._handshake.sender_index.to_bytes(4, "little")
    forged = answer.data[:8] + index + answer.data[12:]
    before = a.state()
    world.throw(a, forged, b.address)
    world.throw(a, MacMaker(a.key.x).add(forged[:-32], world.now), b.address)
    assert a.dropped()["handshake: wrong mac1"] == 1
    assert a.dropped()["handshake: a part of the message does not open"] == 1
    assert a.state() == before
    world.run(1.0)
    assert a.hub.handshakes == 2


# --- a stray: OWN4 is nobody's peer


def test_own_addresses_are_not_peers(world: World, b: Node) -> None:
    assert OWN4 not in b.hub.table.by_address
    assert b.own6 not in b.hub.table.by_address
