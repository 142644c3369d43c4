"""Ciphers are made when they are needed, few are kept, and nobody notices."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from tests.zignet.peers.pair import ONE4, ROOM, Host, as_kernel, host, session, tcp, unfinished
from zignet.noise import Suite
from zignet.peers import ready
from zignet.peers.receive import Opening
from zignet.peers.send import Sealing
from zignet.wire import rebuild, strip

pytestmark = pytest.mark.packet_path
KEY = bytes(range(32))
PEERS = 5


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three, and none of the tests before."""
    monkeypatch.setattr(ready, "MOST", 3)
    ready._ready.clear()


def peers(lab: Host) -> list[tuple[Any, Any]]:
    """Links and keys of as many peers, of both suites."""
    made = []
    for number in range(PEERS):
        four, six = bytes((100, 64, 1, number)), bytes(15) + bytes((9 + number,))
        link = lab.knows(four, six, ("192.0.2.9", number), ROOM)
        one, keys = session(link, Suite(1 + number % 2), 40 + number)
        lab.openings[keys.index] = one.opening
        made.append((link, keys))
    return made


def datagrams(calls: Any) -> list[bytes]:
    return [one for call in calls for one in call.datagrams]


@pytest.mark.parametrize("size", [10, 40_000])
def test_many_are_sent_to_in_turn(size: int) -> None:
    with host() as lab:
        everyone = peers(lab)
        sent = [0] * PEERS
        for turn in range(4):
            for number, (link, keys) in enumerate(everyone):
                packet = tcp((ONE4, link.peer.address4), bytes((turn,)) * size)
                frames = keys.open(datagrams(lab.give(*unfinished(packet, 1000)[::-1])), sent[number])
                assert sum(len(frame) - 24 for frame in frames) == size
                sent[number] += len(frames)
        assert len(ready._ready) == 3


@pytest.mark.parametrize("pieces", [1, 40])
def test_many_are_heard_in_turn(pieces: int) -> None:
    with host() as lab:
        everyone = peers(lab)
        for turn in range(4):
            for number, (link, keys) in enumerate(everyone):
                way = ONE4, link.peer.address4
                frames = [strip(tcp(way, bytes((at,)) * 1000, seq=1000 * at)) for at in range(pieces)]
                batch = [keys.seal(turn * pieces + at, frame) for at, frame in enumerate(frames)]
                written = as_kernel(lab.take(batch, address=("192.0.2.9", number)))
                assert written == [rebuild(frame, link.peer.address4, ONE4) for frame in frames]
        assert len(ready._ready) == 3
        assert not lab.receiver.dropped


@pytest.mark.parametrize("suite", list(Suite))
@pytest.mark.parametrize("kind", [Sealing, Opening])
def test_a_key_is_overwritten(kind: Any, suite: Suite) -> None:
    half = kind(suite, KEY, 7)
    (key,) = (one for one in gc.get_referents(half) if isinstance(one, bytearray) and one)
    assert key == KEY
    half.wake()
    assert len(ready._ready) == 1
    half.rest()
    half.erase()
    assert key == bytes(32)
    assert not ready._ready
    half.erase()
    half.wake()
    assert not ready._ready
    assert KEY.hex() not in repr(half)


def test_it_takes_the_key_s_bytes_and_not_the_object() -> None:
    """The handshake overwrites its own when it has handed them over."""
    with host() as lab:
        link = lab.knows(bytes((100, 64, 1, 1)), bytes(16), ("192.0.2.9", 1), ROOM)
        made, keys = session(link, Suite.AES, 7, KEY)
        handed = bytearray(KEY)
        made.sealing = Sealing(Suite.AES, handed, 7)
        handed[:] = bytes(32)
        packet = tcp((ONE4, link.peer.address4), b"x")
        assert keys.open(datagrams(lab.give(packet))) == [strip(packet)]
