"""New UDP flows: the rules decide, or the datagrams are held while the name is sniffed (QUIC)."""

from __future__ import annotations

from nat import craft
from nat.exit import Chooser, Reason, Refusal, Route
from nat.flow import Source
from nat.gateway import Gateway
from nat.loop import Loop
from nat.packet import Packet
from nat.settings import Settings
from nat.udp import Udp, UdpFlow
from sniff import DatagramSniffer, Found, Outcome

__all__ = ["Datagrams"]

HELD_DATAGRAMS = 8  # of one flow
HELD_BYTES = 16_384
UNREACHABLE = {
    Reason.REFUSED: craft.Unreachable.PORT,
    Reason.HOST_UNREACHABLE: craft.Unreachable.HOST,
    Reason.NET_UNREACHABLE: craft.Unreachable.NET,
}


class Held:
    """A flow whose name is not known yet, and its datagrams."""

    __slots__ = ("datagrams", "flow", "packet", "size", "sniffer", "touched")

    def __init__(self, flow: UdpFlow, packet: bytes, now: float) -> None:
        self.flow = flow
        self.packet = packet  # the first, in case that it has to be refused
        self.sniffer = DatagramSniffer()
        self.datagrams: list[tuple[bytes, int]] = []
        self.size = 0
        self.touched = now


class Datagrams:
    """Opens flows; while one is held, it stands in for its mapping."""

    def __init__(self, loop: Loop, gateway: Gateway, udp: Udp, settings: Settings) -> None:
        self._loop = loop
        self._gateway = gateway
        self._udp = udp
        self.chooser: Chooser
        self._held: dict[UdpFlow, Held] = {}
        self._waiting = loop.expiry(settings.sniff_s, self._silent)

    def first(self, packet: Packet, source: Source) -> None:
        """A datagram from `source` that no flow carries (or that the quick path could not read)."""
        raw = self._gateway.raw
        key = packet.key()
        payload = packet.payload()
        segment = self._gateway.segment_size()
        flow = self._udp.flows.get(key)
        if flow is not None and flow.source is not source:
            self._gateway.dropped["udp: another source's flow"] += 1
            return
        if flow is None:
            opened = self._udp.open(
                source,
                key,
                packet.source(),
                packet.source_port,
                packet.target(),
                packet.target_port,
                packet.hop_limit,
            )
            if opened is None:
                self._gateway.dropped["udp: no room for a new flow"] += 1
                return
            flow = opened
            route = self._choose(flow, None)
            if route is None:
                whole = bytes(raw[packet.start : packet.start + min(packet.length, 1280)])
                self._held[flow] = held = Held(flow, whole, self._loop.now)
                self._waiting.add(held)
                flow.mapping = self
            else:
                self._join(flow, route, packet)
        if flow.mapping is not None:
            flow.up += len(payload)
            flow.mapping.send(flow, memoryview(payload), segment)

    # --- as the mapping of a held flow

    def send(self, flow: UdpFlow, payload: memoryview, segment: int) -> None:
        """Hold a datagram (or several), and look into it."""
        held = self._held[flow]
        step = segment or max(len(payload), 1)
        for start in range(0, max(len(payload), 1), step):
            piece = bytes(payload[start : start + step])
            if len(held.datagrams) >= HELD_DATAGRAMS or held.size + len(piece) > HELD_BYTES:
                held.datagrams += self._rest(payload, start, step)
                self._decide(held, "")  # no handshake that we know is that long
                return
            held.datagrams.append((piece, 0))
            held.size += len(piece)
            answer = held.sniffer.feed(piece)
            if isinstance(answer, Found):
                flow.known_by = answer.protocol
                flow.ech = answer.ech
                held.datagrams += self._rest(payload, start + step, step)
                self._decide(held, answer.name)
                return
            if answer is Outcome.NOT_THIS:
                held.datagrams += self._rest(payload, start + step, step)
                self._decide(held, "")
                return

    def leave(self, flow: UdpFlow) -> None:
        """The flow ends while it is held."""
        held = self._held.pop(flow, None)
        if held is not None:
            self._waiting.discard(held)

    def _rest(self, payload: memoryview, start: int, step: int) -> list[tuple[bytes, int]]:
        rest = bytes(payload[start:])
        return [(rest, step if len(rest) > step else 0)] if rest else []

    def _silent(self, held: Held) -> None:
        self._decide(held, "")

    def _decide(self, held: Held, name: str) -> None:
        flow = held.flow
        self.leave(flow)
        flow.mapping = None
        flow.name = name
        if not name:
            flow.known_by = "address"
        route = self._choose(flow, name)
        assert route is not None  # the seam's promise: with a name the rules always answer
        packet = self._gateway.parsed(bytes(self._gateway.header) + held.packet, quoted=True)
        self._join(flow, route, packet)
        for payload, segment in held.datagrams:
            if flow.mapping is None:
                return
            flow.mapping.send(flow, memoryview(payload), segment)

    # --- decided

    def _choose(self, flow: UdpFlow, name: str | None) -> Route | None:
        route = flow.source.chosen(flow)
        if route is not None:
            return route
        return self.chooser.choose(
            17, flow.source_address, flow.source_port, flow.target, flow.target_port, name
        )

    def _join(self, flow: UdpFlow, route: Route, packet: Packet | None) -> None:
        refusal: Refusal | None = self._udp.settle(flow, route)
        if refusal is None:
            return
        flow.error = refusal.message or "refused by the rules"
        source = flow.source
        self._udp.remove(flow)
        if packet is not None and refusal.reason is not Reason.TIMED_OUT:
            source.send(
                craft.unreachable(packet, UNREACHABLE.get(refusal.reason, craft.Unreachable.PROHIBITED))
            )
