"""Tunnels in memory: real handshakes, halves that compare keys instead of ciphering, a wire, a clock by hand."""

from __future__ import annotations

import heapq
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from zignet.identity import SecretKey
from zignet.noise import (
    AES_IN_HARDWARE,
    NO_PSK,
    HandshakeError,
    MacChecker,
    MessageType,
    Responder,
    Stamps,
    Static,
    Suite,
)
from zignet.peers import actions as act
from zignet.peers.session import Session
from zignet.peers.tunnel import Kit, Tunnel

YEAR_US = 365 * 86_400 * 1_000_000
START = 1_000.0  # monotonic seconds

ALICE, BOB = (SecretKey(bytes((number,)) * 32) for number in (1, 2))

KEEPALIVE, FAREWELL = "keepalive", "farewell"


class Half:
    """Stands for Sealing and Opening: a key, and the counters."""

    def __init__(self, key: bytearray, suite: Suite) -> None:
        self.key: bytes | None = bytes(key)
        self.suite = suite
        self.counter = 0
        self.seen: set[int] = set()
        self.session: Session | None = None

    def erase(self) -> None:
        self.key = None


class Indices:
    def __init__(self) -> None:
        self.owners: dict[int, Any] = {}
        self.openings: dict[int, Half] = {}

    def new(self, owner: Any) -> int:
        while (index := int.from_bytes(os.urandom(4), "little")) == 0 or index in self.owners:
            pass
        self.owners[index] = owner
        return index

    def free(self, index: int) -> None:
        self.owners.pop(index, None)
        self.openings.pop(index, None)


@dataclass(frozen=True)
class Data:
    """A data message on the wire."""

    index: int
    key: bytes
    suite: Suite
    counter: int
    payload: Any


@dataclass(eq=False)
class End:
    """One node that talks to one peer, with what a hub does and no more."""

    world: World
    name: str
    secret: SecretKey
    device: bytes
    remote: bytes
    peer: str  # where it sends to, before it knows better
    aes: bool = True
    psk: bytes = NO_PSK
    keepalive_s: float = 0.0
    wall_us: int = 50 * YEAR_US
    ceiling: int = 0  # what `Stamps` has persisted
    jitter: float = 0.0
    load: bool = False  # whether it asks for cookies
    events: list[tuple[float, Any]] = field(default_factory=list)
    got: list[Any] = field(default_factory=list)
    staged: list[Any] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    sent: list[tuple[float, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.static = Static(self.secret.x)
        self.checker = MacChecker(self.static.public)
        self.restart()

    def restart(self, wall_us: int | None = None) -> None:
        """Everything in memory is lost."""
        if wall_us is not None:
            self.wall_us = wall_us
        stamps = Stamps(self.ceiling, lambda ceiling: setattr(self, "ceiling", ceiling))
        begun = self.world.now
        self.indices = Indices()
        kit = Kit(
            static=self.static,
            key=self.secret.public.ed,
            device=self.device,
            aes=self.aes,
            features=AES_IN_HARDWARE if self.aes else 0,
            stamp=lambda: stamps.next(self.wall_us + int((self.world.now - begun) * 1e6)),
            jitter=lambda: self.jitter,
            indices=self.indices,
            halves=lambda suite, send, receive, local, remote: (Half(send, suite), Half(receive, suite)),
        )
        self.tunnel = Tunnel(kit, self.remote, self.psk, self.keepalive_s)
        self.armed = float("inf")
        self.address = self.peer
        self.staged.clear()
        self.do(self.tunnel.start(self.world.now))

    # --- what the hub does

    def do(self, actions: list[Any]) -> None:
        self.armed = self.tunnel.deadline
        for action in actions:
            self.events.append((self.world.now, action))
            match action:
                case act.Initiate(message):
                    self.put(message, self.address)
                case act.Respond(message, origin):
                    self.put(message, origin)
                case act.Prepared(session):
                    self.indices.openings[session.local_index] = session.opening
                    session.opening.session = session
                case act.Established(session):
                    self.indices.openings[session.local_index] = session.opening
                    session.opening.session = session
                    self.address = session.origin
                    self.flush() or self.seal(KEEPALIVE, False)
                case act.Confirmed(session):
                    self.address = session.origin
                    self.flush()
                case act.Keepalive():
                    self.seal(KEEPALIVE, False)
                case act.Superseded(sessions):
                    for session in sessions:
                        self.seal((FAREWELL, 2), False, session)
                        session.erase()
                case act.GaveUp():
                    self.staged.clear()

    def say(self, payload: Any) -> None:
        """The user sends something."""
        if self.tunnel.before_send(self.world.now):
            self.seal(payload, True)
        else:
            self.staged.append(payload)
            self.do(self.tunnel.wanted(self.world.now))

    def flush(self) -> bool:
        waiting, self.staged = self.staged, []
        for payload in waiting:
            self.seal(payload, True)
        return bool(waiting)

    def seal(self, payload: Any, is_data: bool, session: Session | None = None) -> None:
        chosen = session or self.tunnel.sending
        assert chosen is not None
        half = chosen.sealing
        assert half.key is not None
        self.put(Data(chosen.remote_index, half.key, half.suite, half.counter, payload), self.address)
        half.counter += 1
        if session is None and self.tunnel.sent(self.world.now, is_data):
            self.armed = self.tunnel.deadline

    def put(self, message: Any, target: str) -> None:
        self.sent.append((self.world.now, message))
        self.world.carry(message, self.name, target)

    # --- what comes

    def receive(self, message: Any, source: str) -> None:
        if isinstance(message, Data):
            self.open(message, source)
            return
        try:
            self.handshake(message, source)
        except HandshakeError as error:
            self.refused.append(str(error))

    def handshake(self, message: bytes, source: str) -> None:
        now, kind = self.world.now, message[0]
        if kind == MessageType.COOKIE:
            owner = self.indices.owners.get(int.from_bytes(message[4:8], "little"))
            if owner is None or not owner.receive_cookie(message, now):
                raise HandshakeError("cookie")
            return
        if not self.checker.mac1_ok(message):
            raise HandshakeError("mac1")
        address = source.encode().ljust(18, b"\0")
        if self.load and not self.checker.mac2_ok(message, address, now):
            self.put(self.checker.cookie_for(message, address, now), source)
            return
        if kind == MessageType.INITIATION:
            responder = Responder.open(self.static, message)
            assert responder.remote == self.remote
            self.do(self.tunnel.receive_initiation(responder, source, now))
        else:
            owner = self.indices.owners.get(int.from_bytes(message[8:12], "little"))
            if owner is None:
                raise HandshakeError("no such index")
            self.do(owner.receive_response(message, source, now))

    def open(self, data: Data, source: str) -> None:
        now = self.world.now
        opening = self.indices.openings.get(data.index)
        if opening is None:
            self.refused.append("unknown session")
            return
        session = opening.session
        assert session is not None
        if now >= session.reject_at:
            self.refused.append("too old")
            return
        if opening.key != data.key or opening.suite != data.suite:
            self.refused.append("not authentic")
            return
        if data.counter in opening.seen:
            self.refused.append("replayed")
            return
        opening.seen.add(data.counter)
        is_data = data.payload is not KEEPALIVE and not isinstance(data.payload, tuple)
        if session is self.tunnel.next:
            self.do(self.tunnel.opened(session, now, is_data))
        elif self.tunnel.heard(session, now, is_data):
            self.armed = self.tunnel.deadline
        if isinstance(data.payload, tuple):
            self.do(self.tunnel.receive_farewell(session, data.payload[1], now))
        elif is_data:
            self.got.append(data.payload)

    # --- for tests

    def times(self, *kinds: type) -> list[float]:
        """When such actions came, since the start."""
        return [round(when - START, 6) for when, action in self.events if isinstance(action, kinds)]

    def sessions(self) -> list[Session]:
        tunnel = self.tunnel
        return [one for one in (tunnel.next, tunnel.sending, *tunnel.before) if one is not None]

    def check(self) -> None:
        """Invariants of whatever state: indices are those of what lives, nothing erased is held."""
        sessions = self.sessions()
        assert len(sessions) <= 5
        assert len({id(one) for one in sessions}) == len(sessions)
        assert all(one.sealing.key is not None for one in sessions)
        live = {one.local_index for one in sessions}
        pending = self.tunnel._handshake
        assert set(self.indices.openings) == live
        assert set(self.indices.owners) == live | ({pending.sender_index} if pending else set())
        assert self.armed == self.tunnel.deadline


class World:
    """The ends, what is under way between them, and the time."""

    def __init__(self) -> None:
        self.now = START
        self.ends: dict[str, End] = {}
        self.queue: list[tuple[float, int, str, Any, str]] = []
        self.order = itertools.count()
        self.fate: Callable[[Any, str, str], list[float]] = lambda message, source, target: [0.05]
        self.delivered: list[Any] = []

    def end(self, name: str, secret: SecretKey, remote: SecretKey, peer: str, **more: Any) -> End:
        device = more.pop("device", name.encode().ljust(8, b"."))
        end = End(self, name, secret, device, remote.public.x, peer, **more)
        self.ends[name] = end
        return end

    def carry(self, message: Any, source: str, target: str) -> None:
        for delay in self.fate(message, source, target):
            heapq.heappush(self.queue, (self.now + delay, next(self.order), target, message, source))

    def run(self, seconds: float) -> None:
        """Let time pass: deliveries and timers, in order."""
        end = self.now + seconds
        while True:
            armed = [(one.armed, name) for name, one in self.ends.items()]
            timer, name = min(armed)
            arrival = self.queue[0][0] if self.queue else float("inf")
            if min(timer, arrival) > end:
                break
            if arrival <= timer:
                when, _, target, message, source = heapq.heappop(self.queue)
                self.now = max(self.now, when)
                if target in self.ends:
                    self.delivered.append(message)
                    self.ends[target].receive(message, source)
                    self.ends[target].check()
            else:
                self.now = max(self.now, timer)
                one = self.ends[name]
                one.do(one.tunnel.handle_timer(self.now))
                if one.armed <= self.now:  # what was just sent made something due: once, and not for ever
                    one.do(one.tunnel.handle_timer(self.now))
                assert one.armed > self.now
                one.check()
        self.now = end

    def until(self, since_start: float) -> None:
        """Let it be so many seconds after the start."""
        self.run(START + since_start - self.now)


def pair(a: dict[str, Any] | None = None, b: dict[str, Any] | None = None) -> tuple[World, End, End]:
    world = World()
    return (
        world,
        world.end("a", ALICE, BOB, "b", **(a or {})),
        world.end("b", BOB, ALICE, "a", **(b or {})),
    )


def met(**more: Any) -> tuple[World, End, End]:
    """Alice has begun, one message has gone each way: sessions were born at 0.05 (Bob) and 0.1 (Alice)."""
    world, a, b = pair(**more)
    a.say("hello")
    world.until(0.2)
    b.say("welcome")
    world.until(0.3)
    assert (b.got, a.got) == (["hello"], ["welcome"])
    return world, a, b


def kinds(end: End) -> list[str]:
    return [type(action).__name__ for _, action in end.events]
