"""Control frames and what people see: pings, refusals, the key log, who was seen when; and links that end."""

from __future__ import annotations

import gc
import io
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.zignet.peers.hubs import (
    DELAY,
    HOST_UNREACHABLE,
    PROHIBITED,
    PROHIBITED6,
    START,
    WALL,
    Node,
    World,
    icmp_error,
    met,
)
from tests.zignet.peers.pair import udp
from zignet.noise import Suite
from zignet.peers import report
from zignet.peers.key_log import KeyLogFile
from zignet.peers.peer import Link
from zignet.wire import keylog, parse_data, unseal
from zignet.wire.frame import Answer, Challenge, Farewell, Ping, Pong, Protocol, Refusal, Refused

pytestmark = pytest.mark.packet_path

INITIATION, RESPONSE, DATA = 1, 2, 4


@pytest.fixture
def pair(world: World) -> tuple[Node, Node]:
    """Two nodes that have met, and have nothing more to find out."""
    a, b = world.node("a"), world.node("b")
    met(world, a, b)
    world.run(12)
    world.sent.clear()
    return a, b


def ask(world: World, node: Node, other: Node, patience_s: float = 60.0) -> Any:
    """What comes of a ping, as the control socket asks for it: now and then."""
    end = world.now + patience_s
    for result in report.ping(node.hub, node.peer(other)):
        if result is not None:
            return result
        assert world.now < end
        world.run(0.05)
    raise AssertionError("it has ended without a result")


def send_control(node: Node, other: Node, frame: bytes) -> None:
    node.hub._control(node.link(other), frame)


# --- pings


def test_a_ping(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    result = ask(world, a, b)
    assert result == {
        "peer": "b",
        "key": b.key.name,
        "path": "192.0.2.2:51830",
        "rtt_s": pytest.approx(2 * DELAY),
        "handshake": False,
        "error": None,
    }
    assert report.row(a.hub, a.peer(b))["rtt_s"] == pytest.approx(2 * DELAY)
    assert a.heard() == b.heard() == []  # it goes through the session, not through the TUN
    assert a.link(b).pings == {}


def test_a_ping_makes_a_session_first(world: World) -> None:
    a, b = world.node("a"), world.node("b")
    a.knows(b)
    b.knows(a)
    result = ask(world, a, b)
    assert (result["handshake"], result["error"]) == (True, None)
    assert result["rtt_s"] == pytest.approx(2 * DELAY)
    assert b.connected(a)


def test_a_ping_of_a_stranger_that_is_here(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    b.admits("allow")
    b.forgets(a)
    result = ask(world, b, a)
    assert (result["peer"], result["error"]) == (a.key.name, None)


def test_a_ping_without_an_answer(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    world.fate = lambda one: ()
    begun = world.now
    result = ask(world, a, b)
    assert (result["rtt_s"], result["error"]) == (None, "timed out")
    assert world.now - begun == pytest.approx(report.PING_S, abs=0.2)
    assert a.link(b).pings == {}


def test_a_ping_without_a_handshake(world: World) -> None:
    a, b = world.node("a"), world.node("b")
    a.knows(b)
    begun = world.now
    result = ask(world, a, b)  # b does not admit a
    assert (result["rtt_s"], result["error"], result["path"]) == (None, "no answer to the handshake", "")
    assert world.now - begun == pytest.approx(report.CONNECT_S, abs=0.2)


@pytest.mark.parametrize("how", ["denied", "taken out"])
def test_a_ping_of_a_peer_that_goes_meanwhile(world: World, how: str) -> None:
    """It does not come back for it."""
    a, b = world.node("a"), world.node("b")
    a.admits("allow")
    a.knows(b)
    world.fate = lambda one: ()
    asked = iter(report.ping(a.hub, a.peer(b)))
    assert next(asked) is None
    world.run(1.0)
    if how == "denied":
        a.admits("allow", deny=[b])
    else:
        a.forgets(b)
        a.admits("deny")
    result = next(asked)
    assert result is not None
    assert result["error"] == "no answer to the handshake"
    assert a.state()["links"] == a.state()["tunnels"] == 0


def test_a_ping_of_a_peer_that_nobody_knows_the_way_to(world: World) -> None:
    a, b = world.node("a"), world.node("b")
    a.knows(b, endpoint=None)
    result = ask(world, a, b, patience_s=0.0)
    assert result["error"] == "no endpoint is configured, and it has not come by itself"


def test_a_ping_whose_session_ends_meanwhile(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    asked = report.ping(a.hub, a.peer(b))
    assert next(iter(asked)) is None
    b.stop()
    result = None
    for result in asked:
        if result is not None:
            break
        world.run(0.05)
    assert result is not None
    assert result["error"] in (None, "timed out")


def test_unanswered_pings_are_bounded(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    world.fate = lambda one: ()
    for _ in range(200):
        a.hub.ping(a.link(b))
    assert len(a.link(b).pings) == 64


def test_a_pong_that_nobody_asked_for(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    before = a.state(), a.link(b).rtt_s
    for number in range(100):
        send_control(b, a, Pong(number.to_bytes(8, "big")).encode())
    world.run(1.0)
    assert (a.state(), a.link(b).rtt_s) == before


def test_a_ping_is_answered_by_the_path_in_use(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    old = a.address
    a.move(77)
    send_control(a, b, Ping(b"12345678").encode())
    world.run(DELAY + 0.001)
    assert {one.target for one in world.of(DATA, b)} == {old, a.address}
    (challenge,) = [one for one in world.of(DATA, b) if one.target == a.address]
    assert len(challenge.data) == 56
    (pong,) = [one for one in world.of(DATA, b) if one.target == old]
    assert len(pong.data) == 16 + 12 + 16


# --- control frames of any kind


def test_bad_control_frames_change_nothing(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    before = a.state()
    for frame in (
        bytes((0, 99, 0, 0)),
        bytes((0, 1, 0, 0)) + b"short",
        bytes((0, 0, 1, 0)),
        bytes((0, 6, 0, 0)),
        bytes((0, 4, 0, 0)) + bytes(10),
        bytes((0, 0, 0, 0, 1)),
    ):
        send_control(b, a, frame)
        world.run(0.1)
    assert a.connected(b)
    assert {**a.state(), "timers": 0} == {**before, "timers": 0}
    assert sum(count for reason, count in a.hub.dropped.items() if reason.startswith("control: ")) == 6


def test_an_answer_that_nobody_waits_for(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    before = a.state(), a.link(b).address, a.link(b).paths.mtu
    for number in range(100):
        frame = Answer(number.to_bytes(16, "big"), number, 9000, 1, bytes(16)).encode()
        send_control(b, a, frame)
    world.run(1.0)
    assert (a.state(), a.link(b).address, a.link(b).paths.mtu) == before


@pytest.mark.parametrize("reason", [1, 2, 3, 0, 77])
def test_a_farewell_of_any_reason_ends_the_session(
    world: World, pair: tuple[Node, Node], reason: int
) -> None:
    a, b = pair
    send_control(b, a, Farewell(reason).encode())
    world.run(0.1)
    assert not a.connected(b)
    a.send(b, b"anew")
    world.run(1.0)
    assert b.heard() == [b"anew"]
    assert a.hub.handshakes == 2


def test_padding_is_answered_with_the_size_that_came(world: World, pair: tuple[Node, Node]) -> None:
    """Three times at most: the answer has no padding."""
    a, b = pair
    send_control(a, b, Challenge(bytes(16), 3, 1000).encode())
    world.run(0.06)
    (answer,) = world.of(DATA, b)
    assert len(answer.data) == 16 + 4 + 40 + 16


def test_a_challenge_is_answered_to_where_it_came_from(world: World, pair: tuple[Node, Node]) -> None:
    """Whatever the path in use: that is what it asks about."""
    a, b = pair
    old = a.address
    a.move(77)
    send_control(a, b, Challenge(bytes(16), 3).encode())
    world.run(DELAY + 0.001)
    (answer,) = [one for one in world.of(DATA, b) if len(one.data) == 76]
    assert answer.target == a.address != old


# --- refusals


@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize("reason", list(Refusal))
def test_a_refusal_is_told_to_the_application(
    world: World, pair: tuple[Node, Node], v6: bool, reason: Refusal
) -> None:
    a, b = pair
    way = a.way(b, v6)
    packet = udp(way, b"refuse me")
    head = 40 if v6 else 20
    frame = bytes((Protocol.UDP, int(v6), 0, 64)) + packet[head:]
    send_control(b, a, Refused.of(frame, reason).encode())
    world.run(0.1)
    (told,) = map(icmp_error, a.take())
    assert (told.kind, told.code) == (PROHIBITED6 if v6 else PROHIBITED)
    assert told.source == way[1]
    assert told.quoted[head : head + 8] == packet[head : head + 8]
    at, size = (8, 16) if v6 else (12, 4)
    assert told.quoted[at : at + 2 * size] == b"".join(way)


def test_what_is_refused(world: World, pair: tuple[Node, Node]) -> None:
    """A frame of a later version, and a flag of one."""
    a, b = pair
    for first in (bytes((99, 0, 0, 64)), bytes((Protocol.UDP, 32, 0, 64))):
        link = a.link(b)
        a.hub.sender.frames(link, link.ready(world.now), [first + b"12345678" + b"more"], link.address, True)
        world.run(0.2)
        (told,) = map(icmp_error, a.take())
        assert (told.kind, told.code) == PROHIBITED
    assert b.take() == []
    assert b.connected(a)


# --- the key log


def test_the_key_log(world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Mode 0600, a line for each session; with it, what was sealed can be read."""
    path = tmp_path / "session.keys"
    path.write_text("# kept\n")
    path.chmod(0o644)
    before = os.umask(0)
    try:
        a = world.node("a", key_log=path)
    finally:
        os.umask(before)
    b = world.node("b")
    met(world, a, b)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert f"session keys are written to {path}" in caplog.text
    assert path.read_text().startswith("# kept\n")
    log = keylog.KeyLog.read(io.StringIO(path.read_text()))
    assert (log.sessions, log.bad_lines) == (1, 0)
    opened = 0
    for one in world.of(DATA):
        index, _ = parse_data(one.data)
        ((session, key, sent),) = log.find(index)
        frame = unseal(Suite(session.suite), key, one.data)
        assert sent == (one.source == a.address)
        assert session.peer == b.key.name
        opened += frame[0] == Protocol.UDP
    assert opened == 1
    world.run(121)
    a.send(b, b"another")
    world.run(1.0)
    assert keylog.KeyLog.read(io.StringIO(path.read_text())).sessions == 2
    for line in path.read_text().splitlines()[1:]:
        secret = line.split()[4]
        assert secret not in caplog.text


def test_strangers_are_in_the_key_log_too(world: World, tmp_path: Path) -> None:
    path = tmp_path / "session.keys"
    b, s = world.node("b", key_log=path), world.node("s")
    b.admits("allow")
    s.knows(b)
    s.send(b, b"x")
    world.run(1.0)
    assert path.read_text().split()[-1] == s.key.name


def test_a_key_log_is_made_for_its_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        log = KeyLogFile(tmp_path / "keys")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o600
    log.close()
    log.close()


def test_no_key_log_is_no_reason_to_talk_to_nobody(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    a = world.node("a", key_log=tmp_path / "missing" / "keys")
    assert "can't be written" in caplog.text
    met(world, a, world.node("b"))


def test_a_full_disk(world: World, caplog: pytest.LogCaptureFixture) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    mode = stat.S_IMODE(Path("/dev/full").stat().st_mode)
    try:
        a = world.node("a", key_log=Path("/dev/full"))
        met(world, a, world.node("b"))
    finally:
        Path("/dev/full").chmod(mode)
    assert caplog.text.count("no more session keys are kept") == 1


# --- links that end


def alive(*nodes: Node) -> int:
    """Links of these nodes' hubs, wherever they are held."""
    gc.collect()
    hubs = [node.hub for node in nodes]
    return sum(isinstance(one, Link) and one.hub in hubs for one in gc.get_objects())


def test_an_idle_link_vanishes_and_the_store_remembers(world: World) -> None:
    a, b = world.node("a"), world.node("b")
    met(world, a, b)
    world.run(3)
    a.send(b, b"last words")
    world.run(700)
    assert a.state()["links"] == b.state()["links"] == 0
    assert b.heard() == [b"last words"]
    assert alive(a, b) == 0
    for node, other in ((a, b), (b, a)):
        known = node.hub.store.known(other.key.x)
        assert known is not None
        assert 4 <= known.last_seen - WALL <= 70
        assert known.endpoint == f"{other.address[0]}:{other.address[1]}"
        row = report.row(node.hub, node.peer(other))
        assert (row["state"], row["path"], row["handshake_age_s"]) == ("idle", "", None)
    a.send(b, b"again")
    world.run(1.0)
    assert b.heard() == [b"again"]


def test_links_of_many_kinds_leave_nothing_behind(world: World) -> None:
    """Met, never answered, denied, stranger, evicted: no link, no timer, no index stays."""
    a, b, c, s = (world.node(name) for name in ("a", "b", "c", "s"))
    b.admits("allow", deny=[c])
    timers = [node.state()["timers"] for node in (a, b, c, s)]
    for one in (a, c, s):
        one.knows(b)
        one.send(b, b"x")
    a.knows(c)
    a.send(c, b"nobody admits")
    b.knows(a)
    b.send(a, b"y")
    world.run(1.0)
    del world.nodes[s.address]  # nobody hears of it any more
    world.run(1000)
    assert alive(a, b, c, s) == 0
    for node, count in zip((a, b, c, s), timers, strict=True):
        state = node.state()
        assert (state["tunnels"], state["openings"], state["links"], state["pending"]) == (0, 0, 0, 0)
        assert state["timers"] == count


def test_no_timer_is_left_for_the_dead(world: World) -> None:
    """On a path whose size is never asked about again before its next search, ten minutes after the last."""
    a, b = world.node("a"), world.node("b")
    a.transport.interface = b.transport.interface = 1232
    before = a.state()["timers"]
    met(world, a, b)
    world.run(545)
    assert a.state()["links"] == 0
    assert a.state()["timers"] == before


def test_what_waits_for_a_link_that_ends_is_told(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    b.kill()
    a.link(b).tunnel.forget()
    a.send(b, b"waits")
    a.hub._part(a.link(b), 1)  # type: ignore[arg-type]
    (told,) = map(icmp_error, a.take())
    assert (told.kind, told.code) == HOST_UNREACHABLE


def test_who_is_there_is_written_down_once_a_minute(world: World) -> None:
    a, b = world.node("a"), world.node("b")
    met(world, a, b)
    assert a.hub.store.known(b.key.x).last_seen == 0  # type: ignore[union-attr]
    world.run(60)
    assert a.hub.store.known(b.key.x).last_seen > WALL  # type: ignore[union-attr]
    a.kill()  # and not only by an orderly end
    a.start()
    assert a.hub.store.known(b.key.x).last_seen > WALL  # type: ignore[union-attr]


def test_a_stop_writes_down_who_was_there(world: World) -> None:
    a, b = world.node("a"), world.node("b")
    met(world, a, b)
    a.stop()
    a.start()
    assert a.hub.store.known(b.key.x).last_seen >= WALL  # type: ignore[union-attr]


# --- what people see


def test_counts(world: World, pair: tuple[Node, Node]) -> None:
    a, _ = pair
    counts = report.counts(a.hub)
    assert {name: counts[name] for name in ("known", "connected", "pending", "handshakes", "under_load")} == {  # type: ignore[literal-required]
        "known": 1,
        "connected": 1,
        "pending": 0,
        "handshakes": 1,
        "under_load": False,
    }
    world.throw(a, b"\xff")
    world.throw(a, bytes((4, 0, 0, 0)) + b"1234" * 10)
    a.hub.transport.dropped["told: ECONNREFUSED"] += 1  # type: ignore[attr-defined]
    dropped = report.counts(a.hub)["dropped"]
    assert dropped == {"not a message": 1, "no such session": 1, "told: ECONNREFUSED": 1}
    world.run(200)
    assert report.counts(a.hub)["connected"] == 0


def test_identity(world: World, pair: tuple[Node, Node]) -> None:
    a, _ = pair
    told = report.identity(a.hub)
    assert told["key"] == a.key.name
    assert told["address"] == "100.64.0.1"
    assert told["listen"] == "udp://192.0.2.1:51830"
    assert told["cipher"] == "ChaCha20-Poly1305"


def test_a_row(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    for _ in range(10):
        a.send(b, b"x" * 100)
    world.run(1.0)
    row = report.row(b.hub, b.peer(a))
    assert (row["name"], row["key"], row["configured"], row["state"]) == ("a", a.key.name, True, "connected")
    assert (row["path"], row["path_mtu"], row["cipher"]) == ("192.0.2.1:51830", 1472, "ChaCha20-Poly1305")
    assert row["received"] > 1000
    assert row["sent"] > 0
    assert row["loss"] == 0.0
    assert row["handshake_age_s"] == pytest.approx(world.now - START - 0.15, abs=0.1)
    assert row["idle_s"] == pytest.approx(1.0 - DELAY, abs=0.01)
    assert row["last_seen"] == pytest.approx(world.wall() - row["idle_s"], abs=0.01)


def test_loss(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    turns = iter(range(10_000))
    world.fate = lambda one: () if one.source == a.address and next(turns) % 4 == 0 else (one,)
    for _ in range(400):
        a.send(b, b"x")
    world.run(0.2)
    assert report.row(b.hub, b.peer(a))["loss"] == pytest.approx(0.25, abs=0.02)
    assert report.row(a.hub, a.peer(b))["loss"] == 0.0


def test_states(world: World) -> None:
    a, b = world.node("a"), world.node("b")
    a.knows(b)

    def state() -> str:
        return report.row(a.hub, a.peer(b))["state"]

    assert state() == "idle"
    a.send(b, b"x")
    assert state() == "connecting"
    world.run(1.0)
    assert state() == "connecting"
    b.knows(a)
    world.run(6.0)
    assert state() == "connected"
    world.run(200)
    assert state() == "idle"


def test_rows(world: World, pair: tuple[Node, Node]) -> None:
    """Those that are known now; with `every`, those too that had an address before."""
    a, _ = pair
    s, c = world.node("s"), world.node("c")
    a.knows(c)
    a.admits("allow")
    s.knows(a)
    s.send(a, b"x")
    world.run(1.0)
    assert [row["name"] for row in report.rows(a.hub, False)] == ["b", "c", ""]
    world.run(900)
    assert [row["name"] for row in report.rows(a.hub, False)] == ["b", "c"]
    *_, last = report.rows(a.hub, True)
    assert (last["key"], last["configured"], last["state"]) == (s.key.name, False, "idle")
    assert last["path"] == "192.0.2.3:51830"
    assert last["last_seen"] is not None
    assert last["last_seen"] >= WALL
    assert len(list(report.rows(a.hub, True))) == 3  # nobody twice


def test_rows_stand_peers_that_come_and_go(world: World, pair: tuple[Node, Node]) -> None:
    """They are made over many turns of the loop."""
    a, b = pair
    others = [world.node(f"n{number}") for number in range(5)]
    for one in others:
        a.knows(one)
    rows = report.rows(a.hub, True)
    first = next(iter(rows))
    for one in others[:3]:
        a.forgets(one)
    a.hub._part(a.link(b), 1)  # type: ignore[arg-type]
    a.knows(world.node("late"))
    assert len([first, *rows]) >= 3
