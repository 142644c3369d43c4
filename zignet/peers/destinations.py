"""The application's side of exit flows: which fake address is a destination by which peer's exit (protocol §6).

    sender ─► first(at, length)    a SYN, or a datagram that the exit may not understand yet
                 │ the rules, with the name that the address stands for
                 ├─ a peer's exit ─► named: number and name go with the packet
                 └─ anything else ─► the engine

From then on the packet path finds the `Destination` by itself: outward by the address, inward by the number. While
the peer is dead (`Tunnel.dead`) everything comes here: segments are reset, a SYN and a datagram wait for an attempt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nat import craft
from nat.checksum import fold, sum16
from nat.exit import Route
from nat.header import TCP_SYN, UDP_LENGTH
from nat.header import Protocol as Ip
from nat.packet import Packet
from zignet.peers.carried import Books, Carried, key_of
from zignet.peers.streams import Stream, streams
from zignet.wire import NUMBERS, address_of, good_name

if TYPE_CHECKING:
    from nat.engine import Engine
    from nat.exit import Chooser
    from zignet.peers.peer import Link, Peer
    from zignet.peers.rare import Rare
    from zignet.peers.send import Sender

__all__ = ["ANSWERED_S", "MOST", "Destination", "Destinations"]

ANSWERED_S = 30.0  # how long an answer shows that the exit knows a number (protocol §6)
MOST = 16_384  # destinations at once; their addresses are not given to other names
LIVELY_S = 60.0  # a stream that has received data so lately waits for more
PROBED_AT_ONCE = 256  # streams, in one turn of the loop
PATIENCE_S = 0.9  # a SYN that is repeated after this, when nothing was heard, asks for a handshake first


class Destination:
    """What a number means: a name or an address, and the peer that is asked for it. The packet path reads it."""

    __slots__ = (
        "address4",
        "address6",
        "answered_until",
        "asked_at",
        "books",
        "flows",
        "in4",
        "in6",
        "meaning",
        "number",
        "peer",
        "ports",
        "route",
        "way4",
        "way6",
    )

    def __init__(
        self, peer: Peer, number: int, meaning: str, addresses: tuple[bytes, bytes], own: tuple[bytes, bytes]
    ) -> None:
        self.peer = peer
        self.number = number
        self.meaning = meaning
        self.address4, self.address6 = addresses
        self.answered_until = 0.0  # monotonic seconds
        self.asked_at = 0.0  # when the first SYN left since anything was heard of the peer
        self.ports: set[int] = set()  # to which the rules let UDP go this way
        self.books: Books | None = None
        self.flows: dict[int, Carried] | None = None  # by `key_of`; None: the engine's NAT has them already
        self.route: Route | None = None  # of the flow that began last
        self.way4 = self.address4 + own[0]
        self.way6 = self.address6 + own[1]
        self.in4 = fold(sum16(self.way4, 0, len(self.way4), 0))
        self.in6 = fold(sum16(self.way6, 0, len(self.way6), 0))

    def address(self, size: int) -> bytes:
        """Its fake address, of 4 or 16 bytes."""
        return self.address4 if size == 4 else self.address6

    def answered(self, now: float) -> None:
        """Something came back: the exit knows the number."""
        self.answered_until = now + ANSWERED_S

    def is_waiting(self, now: float, heard_at: float) -> bool:
        """A SYN leaves: has another one been waiting, while nothing at all came from the peer?"""
        if self.asked_at <= heard_at:
            self.asked_at = now
        return now >= self.asked_at + PATIENCE_S

    def forgotten(self) -> None:
        """The exit does not know the number."""
        self.answered_until = 0.0

    def unseen(self, key: int, now: float) -> Carried | None:
        """A datagram of a flow that the books do not have yet."""
        assert self.books is not None
        assert self.route is not None
        return self.books.udp(self, key, self.route, now)

    def refused(
        self, source_port: int, target_port: int, *, v6: bool, udp: bool, reason: int, now: float
    ) -> None:
        """The exit does not carry this flow."""
        if self.books is not None:
            key = key_of(source_port, target_port, v6=v6, udp=udp)
            self.books.refused(self, key, reason, now)


class Destinations:
    """All destinations of one node."""

    def __init__(
        self,
        engine: Engine,
        sender: Sender,
        rare: Rare,
        own: tuple[bytes, bytes],
        find: Callable[[bytes], Peer | None],  # by the X25519 form of a key
        wake: Callable[[Peer], Link],
        stage: Callable[[Link, bytes], None],
        dropped: Counter[str],
    ) -> None:
        self.by_number: dict[int, Destination] = {}  # the least recently begun first
        self.books = Books(engine.tally, engine.settings, engine.gateway)
        self._by_address = sender.exits
        self._by_peer: Counter[Peer] = Counter()  # how many of them
        self._engine = engine
        self._gateway = engine.gateway
        self._loop = engine.loop
        self._rare = rare
        self._own = own
        self._find, self._wake, self._stage = find, wake, stage
        self._dropped = dropped
        self._packet = Packet(engine.gateway.raw)
        self._chooser: Chooser | None = None
        self._fakes: Any = None  # zignet.dns.Fakes: `number_at`, `address4`, `address6`, `pool4`, `pool6`
        self.streams = streams

    def lead(self, fakes: Any, chooser: Chooser) -> None:
        """From now on these fake addresses mean what this chooser says; also at a reload, for new flows."""
        self._fakes, self._chooser = fakes, chooser
        for destination in self.by_number.values():
            destination.ports.clear()

    def live(self) -> list[bytes]:
        """Addresses that may have flows: not to be given to another name."""
        return [destination.address4 for destination in self.by_number.values()]

    def lost(self, packet: Packet) -> None:
        """A packet of some flow has waited in vain for the peer."""
        destination = self._by_address.get(packet.target())
        if destination is not None:
            self.books.lost(destination, _key(packet), self._loop.now)

    def first(self, at: int, length: int) -> None:
        """A packet in the gateway's buffer that the packet path does not carry by itself."""
        packet, gateway = self._packet, self._gateway
        if packet.parse(at, length, gateway.segment_size() != 0) or packet.fragment:
            gateway.slow(at, length)  # counts what is malformed, and puts fragments together
            return
        target = packet.target()
        number = self._fakes.number_at(target) if self._fakes is not None else -1
        if not 0 < number < NUMBERS or packet.source() != self._own[packet.version == 6]:
            gateway.slow(at, length)
        elif packet.protocol == Ip.TCP and not packet.tcp_flags & TCP_SYN:
            self._segment(packet, at, length)
        elif packet.protocol in (Ip.TCP, Ip.UDP):
            self._begin(packet, at, length, number)
        else:
            gateway.slow(at, length)

    def _segment(self, packet: Packet, at: int, length: int) -> None:
        """A segment with IP options, or one whose exit is dead."""
        destination = self._by_address.get(packet.target())
        link = destination.peer.link if destination is not None else None
        if destination is None or link is None:
            self._gateway.slow(at, length)
        elif link.tunnel.dead:
            self.books.lost(destination, _key(packet), self._loop.now)
            self._dropped["exit flows: reset, the exit does not answer"] += 1
            self._gateway.send(craft.tcp_reset(packet))
        else:
            self._rare.slow_exit(link, at, length, destination.number, False)

    def _begin(self, packet: Packet, at: int, length: int, number: int) -> None:
        """A SYN, or a datagram: ask the rules, and go that way."""
        assert self._chooser is not None
        gateway = self._gateway
        target = packet.target()
        route = self._chooser.choose(
            packet.protocol, packet.source(), packet.source_port, target, packet.target_port, None
        )
        if route is None or not route.name or getattr(route.exit, "kind", "") != "peer":
            gateway.slow(at, length)
            return
        peer = self._find(route.exit.key.x)  # type: ignore[attr-defined]
        if peer is None or not (good_name(route.name.encode()) or address_of(route.name)):
            self._dropped["exit flows: no such peer, or not a name"] += 1
            gateway.send(craft.unreachable(packet, craft.Unreachable.HOST))
            return
        destination = self._destination(peer, number, route)
        if destination is None:  # live flows to it have another exit: the NAT can tell them apart
            gateway.slow(at, length)
            return
        destination.route = route
        if packet.protocol == Ip.UDP:
            destination.ports.add(packet.target_port)
            flow = self.books.udp(destination, _key(packet), route, self._loop.now)
            if flow is not None:
                flow.up += packet.l4_length - UDP_LENGTH
                flow.touched = self._loop.now
        else:
            self.books.tcp(destination, _key(packet), route, self._loop.now)
        link = peer.link or self._wake(peer)
        now, tunnel = self._loop.now, link.tunnel
        # An exit that was restarted shall be found before its silence is long enough for all.
        doubtful = packet.protocol == Ip.TCP and destination.is_waiting(now, tunnel.received_at)
        if link.ready(now) is None or tunnel.dead or doubtful:
            self._stage(link, bytes(gateway.raw[: at + length]))
        else:
            self._rare.named(link, packet, number, route.name)

    # --- when an exit has gone

    def gone(self, peer: Peer) -> None:
        """This exit is dead. Who waits for data from it shall hear so; who is idle may live to see it again."""
        if not self._by_peer[peer]:
            return
        for destination in self.by_number.values():
            if destination.peer is peer:
                destination.forgotten()
        self.probe(peer, LIVELY_S)

    def probe(self, peer: Peer, lively_s: float = float("inf")) -> None:
        """Have the streams by this exit say something, those at least that received data in the last seconds.

        The kernel answers a SYN of a connection that stands with an ACK. It comes here, and is reset; or it goes to
        the exit, and is reset there if that was restarted.
        """
        if not self._by_peer[peer]:
            return
        found = self.streams(self._fakes.pool4, self._fakes.pool6)
        self._probe_some([each for each in found if each.idle_s < lively_s], peer)

    def _probe_some(self, found: list[Stream], peer: Peer) -> None:
        for each in found[:PROBED_AT_ONCE]:
            destination = self._by_address.get(each.target)
            if (
                destination is not None
                and destination.peer is peer
                and each.source == self._own[len(each.source) == 16]
            ):
                way = each.target, each.target_port, each.source, each.source_port
                self._gateway.send(craft.tcp_probe(*way))
        rest = found[PROBED_AT_ONCE:]
        if rest:
            self._loop.soon(lambda: self._probe_some(rest, peer))

    def _destination(self, peer: Peer, number: int, route: Route) -> Destination | None:
        known = self.by_number.pop(number, None)
        if known is not None and known.meaning == route.name:
            self.by_number[number] = known
            return known if known.peer is peer else None
        if known is not None:
            self._forget(known)
        while len(self.by_number) >= MOST:
            self._forget(self.by_number.pop(next(iter(self.by_number))))
        addresses = self._fakes.address4(number), self._fakes.address6(number)
        made = Destination(peer, number, route.name, addresses, self._own)
        made.books = self.books
        made.flows = None if route.again else {}
        self.by_number[number] = made
        self._by_peer[peer] += 1
        for address in addresses:
            self._by_address[address] = made
        return made

    def _forget(self, destination: Destination) -> None:
        self._by_peer[destination.peer] -= 1
        if not self._by_peer[destination.peer]:
            del self._by_peer[destination.peer]
        if destination.flows:
            self.books.end_all(
                destination.flows.values(), "its address means something else now", self._loop.now
            )
        for address in (destination.address4, destination.address6):
            self._by_address.pop(address, None)


def _key(packet: Packet) -> int:
    return key_of(
        packet.source_port, packet.target_port, v6=packet.version == 6, udp=packet.protocol == Ip.UDP
    )
