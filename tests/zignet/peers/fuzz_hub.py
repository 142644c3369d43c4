"""Fuzz targets of the hub. `python -m tests.zignet.peers.fuzz_hub --seconds 600` runs them long, the suite briefly.

Two hubs talk in memory, and somebody between them damages, repeats, delays and invents messages. A run is repeatable by
its seed, but for the keys of each handshake; a failure prints the seed of the input.
"""

from __future__ import annotations

import logging
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from tests.fuzzing import main
from tests.zignet.peers.hubs import DELAY, Datagram, Node, Stranger, World, elsewhere, met
from zignet.noise import MacMaker
from zignet.peers import hub as hub_module
from zignet.peers import report as report_module
from zignet.wire.frame import Answer, Challenge, Farewell, Keepalive, Ping, Pong, Refused

INTERESTING = (0, 1, 2, 3, 4, 5, 6, 44, 0x7F, 0x80, 0xFF)
LURKER = ("198.51.100.66", 6666)


@contextmanager
def world() -> Iterator[World]:
    """A world, and its clock where modules look at one by themselves."""
    with tempfile.TemporaryDirectory() as directory:
        made = World(Path(directory))
        jitter = SimpleNamespace(uniform=lambda least, most: least)
        with (
            mock.patch.object(hub_module, "time", made.time),
            mock.patch.object(report_module, "time", made.time),
            mock.patch.object(hub_module, "random", jitter),
        ):
            yield made
            made.close()


def mutate(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """The data with up to four damages; most leave its length. Never empty."""
    damaged = bytearray(data)
    for _ in range(rng.randint(0, 4)):
        at = rng.randrange(len(damaged) + 1)
        what = rng.randrange(7)
        if what == 0 and at < len(damaged):
            damaged[at] ^= 1 << rng.randrange(8)
        elif what == 1 and at < len(damaged):
            damaged[at] = rng.choice(INTERESTING)
        elif what == 2:
            size = min(rng.choice((1, 4, 16, 32)), len(damaged) - at)
            damaged[at : at + size] = bytes((rng.choice(INTERESTING),)) * size
        elif what == 3:
            damaged[at:] = rng.choice(others)[at:]
        elif what == 4:
            damaged[:at] = rng.choice(others)[:at]
        elif what == 5 and rng.random() < 0.3:
            damaged[at:at] = rng.randbytes(rng.randint(1, 20))
        elif what == 6 and rng.random() < 0.3:
            del damaged[at:]
    return bytes(damaged) or b"\0"


def check(node: Node) -> None:
    """What holds at any moment: every index is somebody's, every opening a session's, nothing exceeds its bound."""
    hub = node.hub
    links = [*hub.links(), *hub._pending.values()]
    sessions = {}
    handshakes = set()
    for link in links:
        tunnel = link.tunnel
        for session in (tunnel.next, tunnel.sending, *tunnel.before):
            if session is not None:
                sessions[session.local_index] = session
        if tunnel._handshake is not None:
            handshakes.add(tunnel._handshake.sender_index)
        assert len(tunnel.before) <= 3
        assert len(link.waiting or ()) <= 64
        assert link.waiting_bytes <= 256 << 10
        assert len(link.pings or ()) <= 64
        assert len(link.paths._strange or ()) <= 4
        assert len(link.paths._waiting or ()) <= 16
        assert link.timer is not None
        assert link.timer.callback is not None
        assert link.timer.when <= min(tunnel.deadline, link.paths.deadline)
        assert link.address == link.paths.address
    assert set(hub.indices.openings) == set(sessions)
    assert set(hub.indices.tunnels) == set(sessions) | handshakes
    assert all(hub.indices.openings[index] is session.opening for index, session in sessions.items())
    assert {link.peer for link in hub.links()} == {peer for peer in hub.table if peer.link is not None}
    assert len(hub.dropped) < 60


def settled(one: Node) -> dict[str, int]:
    """What must not have grown."""
    state = one.state()
    return {name: state[name] for name in ("known", "addresses", "pending", "stored")}


# Invariant: whatever arrives at two nodes besides their own messages, changed from these, from wherever: nothing is
# raised, nothing is delivered that was not sent, no state grows, `check` holds; and the two talk on, at once or after
# the next handshake.
def fuzz_handshake(rng: random.Random) -> None:
    with world() as lab:
        a, b = lab.node("a"), lab.node("b")
        a.knows(b)
        b.knows(a)
        b.admits(rng.choice(("allow", "deny")))
        before = settled(a), settled(b)
        seen: list[bytes] = [bytes(220), bytes(104), bytes(64)]

        def fate(one: Datagram) -> Iterator[Datagram]:
            seen.append(one.data)
            del seen[:-40]
            yield one
            for _ in range(rng.randint(0, 3)):
                source = rng.choice((one.source, LURKER, a.address, b.address))
                target = rng.choice((a, b))
                bad = mutate(rng, rng.choice(seen), seen)
                if len(bad) in (104, 220) and rng.random() < 0.5:
                    bad = MacMaker(target.key.x).add(bad[:-32], lab.now)
                yield Datagram(source, target.address, bad, rng.randrange(4), rng.random() * 2 * DELAY)

        lab.fate = fate
        sent: dict[str, list[bytes]] = {"a": [], "b": []}
        for number in range(rng.randint(1, 20)):
            node, other = rng.choice(((a, b), (b, a)))
            sent[node.name].append(b"%d" % number)
            node.send(other, sent[node.name][-1])
            lab.run(rng.choice((0.0, 0.01, 0.2, 3.0, 61.0, 130.0)))
            check(a)
            check(b)
        lab.run(20.0)
        lab.fate = lambda one: (one,)
        lab.run(10.0)
        check(a)
        check(b)
        came = {"a": b.heard(), "b": a.heard()}
        for name, packets in came.items():
            assert set(packets) <= set(sent[name])
            assert len(set(packets)) == len(packets)
        assert (settled(a), settled(b)) == before
        lab.run(20.0)
        a.send(b, b"on")
        b.send(a, b"and on")
        lab.run(20.0)
        a.send(b, b"as ever")
        b.send(a, b"as ever")
        lab.run(1.0)
        assert a.heard()[-1] == b.heard()[-1] == b"as ever"


# Invariant: a stranger with a good key that sends initiations, good ones and bad ones, gets nothing but responses and
# cookies, and leaves nothing behind.
def fuzz_strangers(rng: random.Random) -> None:
    with world() as lab:
        b = lab.node("b")
        b.admits(rng.choice(("allow", "allow", "deny")))
        before = b.state()
        strangers = [Stranger(rng.randbytes(32)) for _ in range(3)]
        messages = [one.begin(b) for one in strangers]
        for _ in range(40):
            stranger = rng.choice(strangers)
            message = rng.choice((stranger.begin(b), *messages))
            if rng.random() < 0.7:
                message = mutate(rng, message, messages)
            if len(message) == 220 and rng.random() < 0.7:
                message = MacMaker(b.key.x).add(message[:-32], lab.now)
            lab.throw(b, message, rng.choice((LURKER, ("192.0.2.200", 1), b.address)))
            lab.run(rng.choice((0.0, 0.001, 0.03, 1.0)))
            check(b)
        assert all(one.data[0] in (2, 3) for one in lab.sent)
        state = b.state()
        assert (state["known"], state["stored"]) == (before["known"], before["stored"])
        lab.run(16.0)
        state = b.state()
        assert {**state, "limits": 0} == before


# Invariant: an admitted peer may seal whatever it likes: nothing is raised, no state grows, the path stays where it is,
# and it can talk on, if need be after a handshake.
def fuzz_control(rng: random.Random) -> None:
    with world() as lab:
        a, b = lab.node("a"), lab.node("b")
        met(lab, a, b)
        lab.run(12.0)
        before, place = settled(b), a.address
        good = [
            Keepalive().encode(),
            Ping(rng.randbytes(8)).encode(),
            Pong(rng.randbytes(8)).encode(),
            Challenge(rng.randbytes(16), rng.getrandbits(32), rng.choice((0, 0, 50, 1000))).encode(),
            Answer(
                rng.randbytes(16), rng.getrandbits(32), rng.getrandbits(16), 5, rng.randbytes(16)
            ).encode(),
            Refused(
                *(rng.randrange(10), rng.randrange(8), rng.randrange(256), rng.randbytes(8)),
                *(rng.randrange(9), rng.randrange(2000)),
            ).encode(),
            Farewell(rng.randrange(5)).encode(),
        ]
        for _ in range(60):
            link = a.hub.wake(a.peer(b))
            session = link.ready(lab.now)
            if session is None:
                a.send(b, b"again")
                lab.run(20.0)
                continue
            frame = mutate(rng, rng.choice(good), good)
            a.hub.sender.frames(link, session, [frame.ljust(4, b"\0")], link.address, rng.random() < 0.5)
            if rng.random() < 0.1:
                b.hub.ping(b.hub.wake(b.peer(a)))
            if rng.random() < 0.2:
                lab.fate = lambda one: (replace(elsewhere(one, LURKER), delay=0.001), one)
            else:
                lab.fate = lambda one: (one,)
            lab.run(rng.choice((0.0, 0.06, 0.5)))
            check(b)
            if b.link(a) is not None and b.connected(a):
                assert b.link(a).address == place
        lab.fate = lambda one: (one,)
        lab.run(30.0)
        a.send(b, b"after all")
        lab.run(20.0)
        a.send(b, b"as ever")
        lab.run(1.0)
        assert b.take()[-1].endswith(b"as ever")
        assert settled(b) == before


TARGETS: list[Callable[[random.Random], None]] = [fuzz_handshake, fuzz_strangers, fuzz_control]


if __name__ == "__main__":
    logging.disable()  # what is logged of all this is no news
    main(__doc__, TARGETS)
