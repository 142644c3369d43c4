"""An application's host and an exit with a real engine, sockets and loop; between them a wire in memory.

lab.give(packet) ─► app: destinations, sender ─► wire ─► receiver, guest, engine ─► a server on loopback
lab.turn() ◄─ what came back ◄─ app's receiver ◄─ wire ◄─ guest ◄─ engine
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network, IPv6Network
from types import SimpleNamespace
from typing import Any

from nat.exit import Route
from nat.settings import Settings
from nat.tally import Tally
from tests.nat.test_race import Names
from tests.nat.world import World, Written
from tests.zignet.peers.pair import (
    ALL,
    HERE4,
    HERE6,
    ONE4,
    ONE6,
    OTHER4,
    OTHER6,
    PEER,
    PLACE4,
    PLACE6,
    ROOM,
    Came,
    Host,
    Notes,
    Tunnel,
    Wire,
    as_kernel,
    trains,
)
from zignet.exits.guests import GuestExit
from zignet.exits.peer import PeerExit
from zignet.identity import SecretKey
from zignet.noise import Suite
from zignet.peers.destinations import Destinations
from zignet.peers.guest import Guests
from zignet.peers.peer import Link, Peer
from zignet.peers.rare import Rare
from zignet.peers.receive import Opening, Receiver
from zignet.peers.send import Sealing, Sender
from zignet.peers.session import Session
from zignet.wire import parse_control

KEY = SecretKey(bytes((5,)) * 32).public
POOL4, POOL6 = IPv4Network("198.19.0.0/16"), IPv6Network("2001:2::/64")


class Fakes:
    """Stands for `zignet.dns.Fakes`: as many names as the test likes, by number."""

    pool4, pool6 = POOL4, POOL6

    def __init__(self) -> None:
        self.names: dict[int, str] = {7: "www.example"}

    def number_at(self, address: bytes) -> int:
        pool = POOL4 if len(address) == 4 else POOL6
        number = int.from_bytes(address, "big") - int(pool.network_address)
        return number if 0 <= number < pool.num_addresses else -1

    def address4(self, number: int) -> bytes:
        return (int(POOL4.network_address) + number).to_bytes(4, "big")

    def address6(self, number: int) -> bytes:
        return (int(POOL6.network_address) + number).to_bytes(16, "big")


class Chooser:
    """All names leave by one exit, or as `ways` says for a port."""

    def __init__(self, fakes: Fakes, exit_: Any) -> None:
        self.fakes, self.exit = fakes, exit_
        self.ways: dict[int, Any] = {}
        self.asked: list[int] = []

    def choose(
        self, protocol: int, source: bytes, source_port: int, target: bytes, port: int, name: str | None
    ) -> Route | None:
        self.asked.append(port)
        meaning = self.fakes.names.get(self.fakes.number_at(target), "")
        return Route(self.ways.get(port, self.exit), "a rule", True, meaning)


class Exit:
    """The exit: an engine, and what a hub would wire to it. Its own TUN is `world.device`."""

    def __init__(self, world: World) -> None:
        self.world = world
        engine = world.engine
        device: Any = world.device
        device.offload = ALL
        loop: Any = world.loop
        self.wire = Wire()
        self.gateway = engine.gateway
        self.hub: Any = Notes(self.gateway)
        self.sender = Sender(loop, self.gateway.raw, 10, self.wire, HERE4, HERE6)
        self.openings: dict[int, Opening] = {}
        self.receiver = Receiver(loop, self.wire, device, self.openings)
        self.dropped: Counter[str] = Counter()
        self.rare = Rare(engine, self.sender, self.dropped, HERE4, HERE6)
        self.guests = self.rare.guests = Guests(engine, self.sender, self.rare, self.dropped)
        for name in ("slow", "slow_exit", "clamp", "nobody", "slow_frame"):
            setattr(self.hub, name, getattr(self.rare, name))
        self.sender.hub = self.receiver.hub = self.hub
        self.receiver.gateway = self.gateway
        nets = IPv4Network("10.99.0.0/16"), IPv4Network("10.99.255.0/24"), IPv6Network("fd00:0:0:99::/64")
        self.gateway.lead_to_peers(self.sender, *nets)
        peer = Peer(KEY, None, OTHER4, OTHER6)
        self.link: Any = Link(self.hub, peer, Tunnel(), None)  # type: ignore[arg-type]
        self.link.address, self.link.room = PEER, ROOM
        self.link.between(HERE4, HERE6)
        peer.link = self.link


class ExitLab:
    """Both, with a session."""

    def __init__(self, **limits: Any) -> None:
        self.world = World(header=10)
        self.app = Host(plain=False)
        self.exit = Exit(self.world)
        self.names = Names({})
        self.world.engine.resolve_with(self.names)  # type: ignore[arg-type]
        self.guests = self.exit.guests
        self.guests.exit = GuestExit(**{"mine": lambda address: False, **limits})
        self.guests.may = lambda link: True
        app_link = self.app.knows(PLACE4, PLACE6, PEER, ROOM)
        self.links = app_link, self.exit.link
        keys = bytes(range(32)), bytes(range(1, 33))
        for link, openings, out in (
            (app_link, self.app.openings, 0),
            (self.exit.link, self.exit.openings, 1),
        ):
            halves = Sealing(Suite.AES, keys[out], 7), Opening(Suite.AES, keys[1 - out], 7)
            made = Session(link.tunnel, halves, (7, 7), Suite.AES, bytes(8), PEER, True, 0.0)  # type: ignore[arg-type]
            halves[1].session, halves[1].peer = made, link
            link.tunnel.sending = made
            openings[7] = halves[1]
        self.fakes = Fakes()
        self.chooser = Chooser(self.fakes, PeerExit("peer_us", KEY))
        app = self.app
        self.passed: list[bytes] = []
        app.gateway.slow = lambda at, length: self.passed.append(bytes(app.gateway.raw[at : at + length]))
        engine: Any = SimpleNamespace(gateway=app.gateway, loop=app.loop, tally=Tally(), settings=Settings())
        notes: Any = app.hub
        self.destinations = Destinations(
            engine,
            app.sender,
            app.rare,
            (ONE4, ONE6),
            {KEY.x: app_link.peer}.get,
            notes.wake,
            notes.stage,
            app.dropped,
        )
        self.destinations.lead(self.fakes, self.chooser)  # type: ignore[arg-type]
        app.rare.destinations = app.receiver.exits = self.destinations.by_number
        notes.first_packet = notes.nobody = self.destinations.first
        notes.foreign = app.gateway.slow

    def give(self, packet: bytes, virtio: bytes = bytes(10)) -> None:
        """The application sends; the exit's engine has it when this returns."""
        for call in self.app.give(packet, virtio):
            for batch in trains(call.datagrams):
                self.exit.wire.coming.append(Came(b"".join(batch), len(batch[0]), PEER, call.ecn))
        self.exit.receiver.on_event(1)

    def turn(self) -> list[bytes]:
        """One turn of the exit; the packets that came back to the application."""
        self.world.loop.turn()
        self.exit.sender.settle()
        sent, self.exit.wire.sent = self.exit.wire.sent, []
        for call in sent:
            for batch in trains(call.datagrams):
                self.app.wire.coming.append(Came(b"".join(batch), len(batch[0]), PEER, call.ecn))
        self.app.receiver.on_event(1)
        for note in self.app.hub.of("control"):
            self.app.rare.refused(self.links[0], parse_control(note[2]))  # type: ignore[arg-type]
        self.app.hub.notes.clear()
        return as_kernel(self.app.written())

    def until(self, condition: Callable[[], Any]) -> Any:
        """Turn until something is there; returns it."""
        return self.world.loop.until(lambda: condition())

    def back(self) -> bytes:
        """The next packet that comes back, and the only one then."""
        got = self.until(self.turn)
        assert len(got) == 1, got
        packet: bytes = got[0]
        return packet

    def tun(self) -> Written:
        """What the exit wrote to its own TUN."""
        written: Written = self.until(self.world.device.take)
        return written

    def close(self) -> None:
        self.world.close()
        self.app.close()


@contextmanager
def exit_lab(**limits: Any) -> Iterator[ExitLab]:
    """Both for the length of a block."""
    made = ExitLab(**limits)
    try:
        yield made
    finally:
        made.close()
