"""Flows that leave by a peer's exit from their first packet on, as people see them: the engine's NAT never has them.

    SYN, first datagram ─► tcp, udp        SYN-ACK, FIN, RST ─► inward, outward        refusal, nobody there ─► failed
    bytes and idle time: the packet path writes them into the flow, once for each read and each write of the TUN

Pure book-keeping: no packet waits for it or goes another way because of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from nat.exit import Route
from nat.expiry import Expiry
from nat.flow import Flow, Source, State
from nat.header import TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN
from nat.header import Protocol as Ip
from zignet.wire import Refusal

if TYPE_CHECKING:
    from nat.settings import Settings
    from nat.tally import Tally
    from zignet.peers.destinations import Destination

__all__ = ["Books", "Carried", "key_of"]

DIALLING_S = 130.0  # a SYN's own patience
CLOSING_S = 60.0
OURS, THEIRS = 1, 2  # whose FIN was seen

REASONS: Mapping[int, str] = {
    Refusal.FORBIDDEN: "the exit does not allow it",
    Refusal.NUMBER_UNKNOWN: "the exit has forgotten the name",
    Refusal.PORT: "refused by the far end",
    Refusal.HOST: "the exit finds no such name, or no way to it",
    Refusal.NETWORK: "the exit has no route to it",
}


def key_of(source_port: int, target_port: int, *, v6: bool, udp: bool) -> int:
    """By what a destination finds its flow; the packet path computes the same."""
    return (source_port << 18) | (target_port << 2) | (v6 << 1) | udp


class Carried(Flow):
    """One flow."""

    __slots__ = ("books", "destination", "fins", "key")

    def __init__(self, books: Books, destination: Destination, key: int, source: Source, now: float) -> None:
        v6 = bool(key & 2)
        addresses, size = (destination.way6, 16) if v6 else (destination.way4, 4)
        protocol = Ip.UDP if key & 1 else Ip.TCP
        super().__init__(
            source, protocol, addresses[size:], key >> 18, addresses[:size], key >> 2 & 0xFFFF, now
        )
        self.books = books
        self.destination = destination
        self.key = key
        self.fins = 0
        self.name = destination.meaning
        self.known_by = "dns"
        self.state = State.ESTABLISHED if key & 1 else State.DIALLING

    # --- from the packet path, at the few TCP segments that change something

    def outward(self, flags: int, now: float) -> None:
        """The application's FIN or RST."""
        if flags & TCP_RST:
            self.books.end(self, "reset by the application", now)
        else:
            self._finished(OURS, now)

    def inward(self, flags: int, now: float) -> None:
        """The far end's SYN-ACK, FIN or RST."""
        if flags & TCP_RST:
            if self.state == State.DIALLING:
                self.books.failed(self, REASONS[Refusal.PORT], now)
            else:
                self.books.end(self, "reset by the far end", now)
        elif flags & TCP_FIN:
            self._finished(THEIRS, now)
        elif flags & (TCP_SYN | TCP_ACK) == TCP_SYN | TCP_ACK and self.state == State.DIALLING:
            self.books.become(self, State.ESTABLISHED)

    def _finished(self, whose: int, now: float) -> None:
        self.fins |= whose
        if self.fins == OURS | THEIRS:
            self.books.end(self, "", now)
        else:
            self.books.become(self, State.CLOSING)


class Books:
    """All of them, on one node."""

    def __init__(self, tally: Tally, settings: Settings, source: Source) -> None:
        self._tally = tally
        self._source = source
        self._most = settings.flows + settings.udp_flows
        self._live: dict[int, Carried] = {}  # by number: the oldest first
        self._now = 0.0  # of the last sweep
        idle = f"idle for {settings.tcp_idle_s:g} s"
        self._udp = Expiry(settings.udp_idle_s, lambda flow: self.end(flow, "", self._now))
        self._tcp = {
            State.DIALLING: Expiry(DIALLING_S, lambda flow: self.failed(flow, "no answer", self._now)),
            State.ESTABLISHED: Expiry(settings.tcp_idle_s, lambda flow: self.end(flow, idle, self._now)),
            State.CLOSING: Expiry(CLOSING_S, lambda flow: self.end(flow, "", self._now)),
        }

    def __len__(self) -> int:
        return len(self._live)

    def counts(self) -> tuple[int, int]:
        """How many there are, TCP and UDP."""
        return len(self._live) - len(self._udp), len(self._udp)

    def flows(self) -> list[Carried]:
        """The live ones, the oldest first."""
        return list(self._live.values())

    def tcp(self, destination: Destination, key: int, route: Route, now: float) -> None:
        """A SYN, perhaps once more."""
        known = self._of(destination, key)
        if known is not None and known.state == State.DIALLING:
            return
        if known is not None:
            self.end(known, "the application began again on the same port", now)
        flow = self._begin(destination, key, route, now)
        if flow is not None:
            self._tally.dialled(flow)

    def udp(self, destination: Destination, key: int, route: Route, now: float) -> Carried | None:
        """A datagram: its flow, which may be new. None: no more are kept."""
        return self._of(destination, key) or self._begin(destination, key, route, now)

    def become(self, flow: Carried, state: State) -> None:
        """A TCP flow goes on."""
        self._queue(flow).discard(flow)
        flow.state = state
        self._queue(flow).add(flow)

    def failed(self, flow: Carried, why: str, now: float) -> None:
        """The exit did not give what was asked for."""
        self._tally.failed(flow, why, now)
        self.end(flow, why, now)

    def refused(self, destination: Destination, key: int, reason: int, now: float) -> None:
        """The exit says why not: a `Refusal`, or a number of a later version."""
        flow = self._of(destination, key)
        if flow is not None:
            self.failed(flow, REASONS.get(reason, "the exit refuses it"), now)

    def lost(self, destination: Destination, key: int, now: float) -> None:
        """Nobody is there to be asked."""
        flow = self._of(destination, key)
        if flow is not None:
            self.failed(flow, f"{destination.peer.name} is not reachable", now)

    def end(self, flow: Carried, why: str, now: float) -> None:
        """It is over."""
        if flow.ended:
            return
        self._queue(flow).discard(flow)
        del self._live[flow.number]
        if flow.destination.flows is not None:
            flow.destination.flows.pop(flow.key, None)
        flow.error, flow.ended = why, now
        flow.settle()
        self._tally.ended(flow)

    def end_all(self, flows: Iterable[Carried], why: str, now: float) -> None:
        """Their destination means something else now."""
        for flow in list(flows):
            self.end(flow, why, now)

    def sweep(self, now: float) -> None:
        """End what has been silent for too long; to be called now and then."""
        self._now = now
        for queue in (self._udp, *self._tcp.values()):
            queue.sweep(now)

    def _of(self, destination: Destination, key: int) -> Carried | None:
        return destination.flows.get(key) if destination.flows is not None else None

    def _begin(self, destination: Destination, key: int, route: Route, now: float) -> Carried | None:
        if destination.flows is None or len(self._live) >= self._most:
            return None
        flow = Carried(self, destination, key, self._source, now)
        flow.route = route
        self._live[flow.number] = destination.flows[key] = flow
        self._queue(flow).add(flow)
        return flow

    def _queue(self, flow: Carried) -> Expiry:
        return self._udp if flow.protocol == Ip.UDP else self._tcp[State(flow.state)]
