"""Whole hubs in memory: real keys, handshakes, sessions, paths and packet path; the underlay is a list, the clock ours.

    world = World(directory)                a, b = world.node("a"), world.node("b")
    a.knows(b)                              a configures b, with its endpoint
    a.send(b, b"hello"); world.run(1.0)     a's user sends a datagram; a second passes
    b.heard() -> [b"hello"]                 what b's user got

`World.fate` decides what becomes of each datagram on the way. A TUN is a socket pair, and a real gateway reads it.
"""

from __future__ import annotations

import heapq
import itertools
import os
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nat.fragments import Reassembler
from nat.gateway import Gateway
from nat.loop import READ, Timer
from nat.settings import Settings
from nat.tally import Tally
from tests.zignet.peers.pair import Tun, udp
from zignet.config import InboundConfig, PeerConfig
from zignet.identity import PublicKey, SecretKey, address6
from zignet.noise import InitiationPayload, Initiator, MacMaker, Stamps, Static, Suite
from zignet.peers import Hub, Local, StampFile, Store
from zignet.transport import Udp

START = 1_000.0  # monotonic seconds
WALL = 1_800_000_000  # seconds since 1970, then
PORT = 51830
RANGE, ALIASES = IPv4Network("100.64.0.0/10"), IPv4Network("100.127.0.0/16")
RANGE6 = IPv6Network("fd5a:6967:6e65::/48")
OWN4 = bytes((100, 64, 0, 1))  # on each host its own
DELAY = 0.05  # seconds, of a datagram on its way

Address = tuple[str, int]


@dataclass(frozen=True)
class Datagram:
    """What is on the underlay."""

    source: Address  # as the receiver sees it
    target: Address
    data: bytes
    ecn: int = 0
    delay: float = DELAY


class Clock:
    """The time of all, and what is due when. It passes when the test says so."""

    def __init__(self) -> None:
        self.now = START
        self.timers: list[tuple[float, int, Timer, Any]] = []
        self.soon: deque[tuple[Callable[[], object], Any]] = deque()
        self._order = itertools.count()

    def at(self, when: float, callback: Callable[[], None], owner: Any = None) -> Timer:
        timer = Timer(when, callback)
        heapq.heappush(self.timers, (when, next(self._order), timer, owner))
        return timer

    def settle(self) -> None:
        """Do what is to be done now."""
        while self.soon:
            self.soon.popleft()[0]()

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        self.settle()
        while self.timers and self.timers[0][0] <= end:
            when, _, timer, _ = heapq.heappop(self.timers)
            self.now = max(self.now, when)
            if timer.callback is not None:
                timer.callback()
            self.settle()
        self.now = max(self.now, end)

    def forget(self, owner: Any) -> None:
        """What somebody has wished for will not happen."""
        for _, _, timer, whose in self.timers:
            if whose is owner:
                timer.cancel()
        self.soon = deque((callback, whose) for callback, whose in self.soon if whose is not owner)


class HandLoop:
    """What a hub asks of its loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.watched: set[int] = set()
        self._turns = 0

    @property
    def turns(self) -> int:
        """Another one whenever it is looked at: all that waits is read."""
        self._turns += 1
        return self._turns

    @property
    def now(self) -> float:
        return self._clock.now

    def watch(self, fd: int, handler: Any, mask: int) -> None:
        self.watched.add(fd)

    def forget(self, fd: int) -> None:
        self.watched.discard(fd)

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        return self._clock.at(when, callback, self)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        return self.call_at(self.now + delay_s, callback)

    def soon(self, callback: Callable[[], object]) -> None:
        self._clock.soon.append((callback, self))

    def from_thread(self, callback: Callable[[], object]) -> None:
        self.soon(callback)

    @property
    def timers(self) -> int:
        """How many calls are still to come."""
        return sum(timer.callback is not None and owner is self for _, _, timer, owner in self._clock.timers)


class FakeUdp:
    """Stands for the underlay socket of a node, IPv4 only."""

    packed, text = staticmethod(Udp.packed), staticmethod(Udp.text)
    side = None  # all comes by one socket

    def __init__(self, world: World, address: Address) -> None:
        self._world = world
        self.address_ = address
        self.interface = 1472  # bytes of the largest datagram that the own interface takes
        self.dropped: Counter[str] = Counter()
        self.too_large: Any = None
        self.inbox: deque[Datagram] = deque()

    @property
    def local(self) -> str:
        return f"udp://{self.text(self.address_)}"

    def fileno(self) -> int:
        return 1_000_000 + id(self) % 1_000_000

    def address(self, host: str, port: int) -> Address:
        try:
            return socket.inet_ntop(socket.AF_INET, socket.inet_pton(socket.AF_INET, host)), port
        except OSError as error:
            raise ValueError(f"{host} can't be reached from this socket") from error

    def ceiling(self, address: Address) -> int:
        return self.interface

    def guard(self, x: bytes, secret: int) -> None:
        pass

    def send(self, datagrams: memoryview, size: int, address: Address, ecn: int = 0) -> None:
        data = bytes(datagrams)
        step = size or len(data)
        if step > self.interface:
            self.dropped["too large for the path"] += 1
            self.too_large(address, step)
            return
        for at in range(0, len(data), step):
            self._world.carry(Datagram(self.address_, address, data[at : at + step], ecn))

    def receive_into(self, buffer: memoryview) -> tuple[int, int, Address, int] | None:
        if not self.inbox:
            return None
        came = self.inbox.popleft()
        buffer[: len(came.data)] = came.data
        return len(came.data), 0, came.source, came.ecn


class Node:
    """A host: its key, its TUN, its hub. `restart` makes the hub anew, with what was kept on disk."""

    def __init__(self, world: World, name: str, seed: int, number: int, **options: Any) -> None:
        self.world = world
        self.name = name
        self.secret = SecretKey(bytes((seed,)) * 32)
        self.key = self.secret.public
        self.own6 = address6(RANGE6, self.key.x).packed
        self.directory = world.directory / f"{name}.state"
        self.device_id = options.pop("device", name.encode().ljust(8, b"."))
        self.options: dict[str, Any] = {"cipher": "chacha20", "key_log": None, "network": RANGE, **options}
        self.transport = FakeUdp(world, (f"192.0.2.{number}", PORT))
        self.peers: tuple[PeerConfig, ...] = ()
        self.inbound = InboundConfig()
        self.notes: list[str] = []  # what the store has said
        self.passed: list[bytes] = []  # packets that are not for peers
        self.hub: Hub
        self.tun: Tun
        self.alive = False
        self.start()

    def start(self) -> None:
        """From what is on disk."""
        world, options = self.world, self.options
        self.loop = HandLoop(world.clock)
        loop: Any = self.loop
        self.tun = Tun(10, 0)
        self.gateway = Gateway(loop, self.tun)
        self.gateway.udp = None
        self.gateway.slow = lambda at, length: self.passed.append(bytes(self.gateway.raw[at : at + length]))
        engine: Any = SimpleNamespace(
            gateway=self.gateway,
            loop=loop,
            fragments=Reassembler(),
            tally=Tally(),
            settings=Settings(),
            flows=lambda: (),
        )
        stamps = StampFile(self.directory)
        transport: Any = self.transport
        network = options["network"]
        aliases = IPv4Network((network.broadcast_address, max(16, network.prefixlen + 1)), strict=False)
        self.hub = Hub(
            engine,
            self.tun,
            transport,
            self.secret,
            Local(
                address4=OWN4,
                address6=self.own6,
                range6=RANGE6,
                device=self.device_id,
                stamps=Stamps(stamps.reserved, stamps.persist),
                cipher=options["cipher"],
                key_log=options["key_log"],
            ),
            partial(Store, self.directory, network, aliases, note=self.notes.append),
        )
        lower = IPv6Network((RANGE6.network_address, 49))
        self.gateway.lead_to_peers(self.hub.sender, network, aliases, lower)
        self.hub.configure(self.peers, self.inbound)
        self.hub.start()
        world.nodes[self.address] = self
        self.alive = True

    def kill(self) -> None:
        """As if by kill -9: nothing is said, nothing is written."""
        self.world.nodes.pop(self.address, None)
        self.hub.store.close()
        self.world.clock.forget(self.loop)
        self.tun.close()
        self.alive = False

    def stop(self) -> None:
        """With farewells."""
        self.hub.close()
        self.world.run(2 * DELAY)
        self.kill()

    def restart(self) -> None:
        self.kill()
        self.start()

    # --- the configuration

    def knows(self, other: Node | PublicKey, endpoint: str | None = "", **more: Any) -> None:
        """Configure a peer; with its endpoint unless told another, or None."""
        key = other if isinstance(other, PublicKey) else other.key
        if endpoint == "":
            assert isinstance(other, Node)
            endpoint = Udp.text(other.address)
        name = more.pop("name", None) or (other.name if isinstance(other, Node) else key.name[:8])
        kept = tuple(peer for peer in self.peers if peer.key != key)
        self.peers = (*kept, PeerConfig(name, key, endpoint, **more))
        self.reload()

    def forgets(self, other: Node) -> None:
        self.peers = tuple(peer for peer in self.peers if peer.key != other.key)
        self.reload()

    def admits(self, default: str = "deny", allow: Iterable[Node] = (), deny: Iterable[Node] = ()) -> None:
        self.inbound = InboundConfig(
            default, frozenset(one.key for one in allow), frozenset(one.key for one in deny)
        )
        self.reload()

    def reload(self) -> None:
        self.hub.configure(self.peers, self.inbound)

    # --- addresses

    @property
    def address(self) -> Address:
        """On the underlay."""
        return self.transport.address_

    def move(self, number: int, port: int = PORT) -> None:
        """To another address of the underlay."""
        self.world.nodes.pop(self.address, None)
        self.transport.address_ = (f"192.0.2.{number}", port)
        self.world.nodes[self.address] = self

    def peer(self, other: Node | Stranger) -> Any:
        return self.hub.table.by_key.get(other.key.x)

    def link(self, other: Node | Stranger) -> Any:
        peer = self.peer(other)
        return None if peer is None else peer.link

    def connected(self, other: Node) -> bool:
        link = self.link(other)
        return link is not None and link.ready(self.world.now) is not None

    def way(self, other: Node, v6: bool = False) -> tuple[bytes, bytes]:
        """Source and target of what goes from here to a peer."""
        peer = self.peer(other)
        return (self.own6, peer.address6) if v6 else (OWN4, peer.address4)

    # --- its user

    def give(self, packet: bytes) -> None:
        """The kernel has a packet for the TUN."""
        self.tun.put(packet)
        self.gateway.on_event(READ)

    def send(self, other: Node, payload: bytes, v6: bool = False) -> None:
        """A datagram for a peer."""
        self.give(udp(self.way(other, v6), payload))

    def take(self) -> list[bytes]:
        """The packets that were written to the TUN since the last time."""
        return [written.raw for written in iter(self.tun.take, None)]

    def heard(self) -> list[bytes]:
        """What came in datagrams since the last time; nothing else may have come."""
        packets = self.take()
        assert all(protocol(packet) == 17 for packet in packets), packets
        return [payload(packet) for packet in packets]

    # --- for tests

    def state(self) -> dict[str, int]:
        """How much is kept, of everything that may grow."""
        hub = self.hub
        links = [*hub.links(), *hub._pending.values()]
        return {
            "known": len(hub.table.by_key),
            "addresses": len(hub.table.by_address),
            "tunnels": len(hub.indices.tunnels),
            "openings": len(hub.indices.openings),
            "links": len(hub.links()),
            "pending": len(hub._pending),
            "limits": len(hub.gate._limit),
            "waiting": sum(len(link.waiting or ()) for link in links),
            "pings": sum(len(link.pings or ()) for link in links),
            "strange": sum(len(link.paths._strange or ()) for link in links),
            "challenges": sum(len(link.paths._waiting or ()) for link in links),
            "timers": self.loop.timers,
            "stored": self.stored(),
        }

    def stored(self) -> int:
        """Rows of the store."""
        return int(self.hub.store._db.execute("SELECT count(*) FROM peers").fetchone()[0])

    def dropped(self) -> Counter[str]:
        """What was dropped, everywhere."""
        hub = self.hub
        return hub.dropped + hub.sender.dropped + hub.receiver.dropped


class World:
    """The nodes, the underlay between them, and the time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = Clock()
        self.nodes: dict[Address, Node] = {}
        self.every: list[Node] = []
        self.sent: list[Datagram] = []
        self.fate: Callable[[Datagram], Iterable[Datagram]] = lambda datagram: (datagram,)
        self.wall_offset = 0.0  # seconds, that somebody has set the clock by
        # Stands for the module `time` in what looks at a clock by itself.
        self.time = SimpleNamespace(
            time=self.wall,
            time_ns=lambda: int(self.wall() * 1e9),
            monotonic=lambda: self.clock.now,
        )

    def wall(self) -> float:
        return WALL + self.clock.now - START + self.wall_offset

    def node(self, name: str, seed: int | None = None, **options: Any) -> Node:
        number = len(self.every) + 1
        made = Node(self, name, number if seed is None else seed, number, **options)
        self.every.append(made)
        return made

    def carry(self, datagram: Datagram) -> None:
        self.sent.append(datagram)
        for one in self.fate(datagram):
            self.inject(one)

    def inject(self, datagram: Datagram) -> None:
        """Have a datagram arrive."""
        self.clock.at(self.now + datagram.delay, partial(self._arrive, datagram))

    def _arrive(self, datagram: Datagram) -> None:
        node = self.nodes.get(datagram.target)
        if node is not None:
            node.transport.inbox.append(datagram)
            node.hub.receiver.on_event(READ)

    def throw(self, target: Node, data: bytes, source: Address = ("198.51.100.7", 4000)) -> None:
        """Somebody's datagram arrives at once."""
        self._arrive(Datagram(source, target.address, data))

    @property
    def now(self) -> float:
        return self.clock.now

    def run(self, seconds: float = 1.0) -> None:
        self.clock.run(seconds)

    def of(self, kind: int, source: Node | None = None, target: Node | None = None) -> list[Datagram]:
        """The datagrams of a type that were sent."""
        return [
            one
            for one in self.sent
            if one.data[0] == kind
            and (source is None or one.source == source.address)
            and (target is None or one.target == target.address)
        ]

    def close(self) -> None:
        for node in self.every:
            if node.alive:
                node.kill()


# --- strangers, without a hub of their own


class Stranger:
    """Somebody with a key who makes handshakes by hand."""

    def __init__(self, seed: int | bytes | SecretKey) -> None:
        if isinstance(seed, SecretKey):
            self.secret = seed
        else:
            self.secret = SecretKey(seed if isinstance(seed, bytes) else bytes((seed,)) * 32)
        self.key = self.secret.public
        self.static = Static(self.secret.x)
        self.stamp = WALL * 1_000_000
        self.initiator: Initiator

    def begin(
        self,
        target: Node,
        *,
        claims: bytes | None = None,
        device: bytes = b"stranger",
        macs: MacMaker | None = None,
        index: int = 7,
        psk: bytes = bytes(32),
        stamp: int | None = None,
    ) -> bytes:
        """An initiation, whole."""
        self.stamp = self.stamp + 1 if stamp is None else stamp
        said = InitiationPayload(claims or self.key.ed, self.stamp, device, 0)
        self.initiator = Initiator.begin(self.static, target.key.x, psk, Suite.CHACHA, index, said)
        return (macs or MacMaker(target.key.x)).add(self.initiator.message, target.world.now)


def payload(packet: bytes) -> bytes:
    """Of a UDP packet."""
    return packet[28:] if packet[0] >> 4 == 4 else packet[48:]


def protocol(packet: bytes) -> int:
    return packet[9] if packet[0] >> 4 == 4 else packet[6]


def source(packet: bytes) -> bytes:
    return packet[12:16] if packet[0] >> 4 == 4 else packet[8:24]


@dataclass(frozen=True)
class IcmpError:
    """What an application is told."""

    kind: int
    code: int
    source: bytes
    quoted: bytes


def icmp_error(packet: bytes) -> IcmpError:
    """An ICMP error, which the packet must be."""
    assert protocol(packet) in (1, 58)
    at = 20 if packet[0] >> 4 == 4 else 40
    return IcmpError(packet[at], packet[at + 1], source(packet), packet[at + 8 :])


HOST_UNREACHABLE, PROHIBITED = (3, 1), (3, 13)  # RFC 792, RFC 1812 §5.2.7.1
HOST_UNREACHABLE6, PROHIBITED6 = (1, 3), (1, 1)  # RFC 4443 §3.1


def met(world: World, a: Node, b: Node, **more: Any) -> None:
    """Have two nodes know each other, and talk."""
    a.knows(b, **more)
    b.knows(a, **more)
    a.send(b, b"first")
    world.run(1.0)
    assert b.heard() == [b"first"]
    assert a.connected(b)
    assert b.connected(a)


def elsewhere(datagram: Datagram, source: Address) -> Datagram:
    """The same, as if it came from another address."""
    return replace(datagram, source=source)


def random_bytes(size: int) -> bytes:
    return os.urandom(size)
