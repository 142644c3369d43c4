"""ICMP: echo requests to remote addresses, and errors that belong to a flow.

An echo leaves through a raw socket when the exit is direct, under an identifier of our own; it is refused
where the rules block it; and where the exit carries no ICMP it is answered here, so that `ping` shows at least
that the way into the proxy is there. Hop limits are kept, so traceroute sees the routers.
"""

from __future__ import annotations

import logging
import socket
import struct

from nat import craft
from nat.checksum import finish, sum16
from nat.exit import Chooser, Reason, Refusal, Route, UdpDirect
from nat.flow import Flow, Source, State
from nat.gateway import Gateway
from nat.header import Icmp4, Icmp6, Protocol
from nat.loop import READ, Handler, Loop
from nat.packet import Packet
from nat.sockets import AF_INET, AF_INET6, Underlay, family_of, text_of
from nat.table import Table
from nat.tally import Tally
from nat.udp import Udp

__all__ = ["EchoFlow", "Icmp"]

log = logging.getLogger("zignet.icmp")

ECHOES = 1024  # at once
IDLE_S = 30.0
MAX_MESSAGE = 65_535
SOL_RAW = 255
ICMP_FILTER = 1  # linux/icmp.h: a mask of the types that are not wanted
ICMP6_FILTER = 1  # linux/icmpv6.h: the same, 256 bits
ERRORS4 = frozenset((Icmp4.UNREACHABLE, Icmp4.TIME_EXCEEDED, Icmp4.PARAMETER))
control_int = struct.Struct("=i")
UNREACHABLE = {
    Reason.HOST_UNREACHABLE: craft.Unreachable.HOST,
    Reason.NET_UNREACHABLE: craft.Unreachable.NET,
}

EchoKey = tuple[Source, bytes, int, bytes]  # source, its address, its identifier, the target


class EchoFlow(Flow):
    """One ping: a source, an identifier, a target."""

    __slots__ = ("identifier", "key")

    key: EchoKey
    identifier: int  # ours, on the outside


class Raw(Handler):
    """A raw ICMP socket of one address family."""

    __slots__ = ("_icmp", "family", "sock")

    def __init__(self, icmp: Icmp, family: int, underlay: Underlay) -> None:
        self._icmp = icmp
        self.family = family
        self.sock = underlay.icmp(family)
        if family == AF_INET:
            wanted = (Icmp4.ECHO_REPLY, *ERRORS4)
            mask = 0xFFFFFFFF & ~sum(1 << int(kind) for kind in wanted)
            self.sock.setsockopt(SOL_RAW, ICMP_FILTER, struct.pack("=I", mask))
        else:
            words = [0xFFFFFFFF] * 8
            for kind in (
                Icmp6.UNREACHABLE,
                Icmp6.TOO_BIG,
                Icmp6.TIME_EXCEEDED,
                Icmp6.PARAMETER,
                Icmp6.ECHO_REPLY,
            ):
                words[kind >> 5] &= ~(1 << (kind & 31)) & 0xFFFFFFFF
            self.sock.setsockopt(socket.IPPROTO_ICMPV6, ICMP6_FILTER, struct.pack("=8I", *words))

    def send(self, message: bytes, target: bytes, hop_limit: int) -> None:
        """An ICMP message, its checksum filled in."""
        level, option = (
            (socket.IPPROTO_IP, socket.IP_TTL)
            if self.family == AF_INET
            else (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT)
        )
        control = [(level, option, control_int.pack(hop_limit))]
        self.sock.sendmsg([message], control, 0, (text_of(target), 0))

    def on_event(self, mask: int) -> None:
        """Answers to all of this host's pings, ours among them."""
        for _ in range(32):
            try:
                data, peer = self.sock.recvfrom(MAX_MESSAGE)
            except OSError:
                return
            if self.family == AF_INET:
                self._icmp.received4(data)
            else:
                sender = socket.inet_pton(AF_INET6, peer[0].partition("%")[0])
                self._icmp.received6(data, sender)


class Icmp:
    """All ICMP of one gateway."""

    def __init__(
        self,
        loop: Loop,
        gateway: Gateway,
        table: Table,
        udp: Udp,
        underlay: Underlay,
        tally: Tally,
    ) -> None:
        self._loop = loop
        self._gateway = gateway
        self._table = table
        self._udp = udp
        self._underlay = underlay
        self._tally = tally
        self.chooser: Chooser
        self.flows: dict[EchoKey, EchoFlow] = {}
        self._by_identifier: dict[tuple[int, int], EchoFlow] = {}
        self._next = 1
        self._idle = loop.expiry(IDLE_S, self._remove)
        self._raw: dict[int, Raw | None] = {}
        self._quoted = bytearray(2048)
        self._view = Packet(self._quoted)

    def prepare(self) -> None:
        """Open the raw sockets now, while this process may."""
        for family in (AF_INET, AF_INET6):
            self._open_raw(family)

    def message(self, packet: Packet, source: Source) -> None:
        """An ICMP or ICMPv6 packet from `source`."""
        v4 = packet.version == 4
        kind = packet.icmp_type
        if kind == (Icmp4.ECHO if v4 else Icmp6.ECHO):
            self._echo(packet, source)
        elif kind in ERRORS4 if v4 else kind <= Icmp6.PARAMETER:
            self._error(packet)
        else:
            self._gateway.dropped["icmp: not for us"] += 1  # neighbour discovery, timestamps

    # --- echo

    def _echo(self, packet: Packet, source: Source) -> None:
        key = (source, packet.source(), packet.source_port, packet.target())
        flow = self.flows.get(key)
        if flow is None:
            flow = self._open(key, packet)
            if flow is None:
                return
        flow.touched = self._loop.now
        data = packet.payload()
        flow.up += len(data)
        if flow.identifier < 0:
            flow.down += len(data)
            source.send(craft.echo_reply(packet))
            return
        rest = bytes(packet.buffer[packet.payload_at - 2 : packet.payload_at])
        v4 = packet.version == 4
        self._send(flow, _message(v4, flow.identifier.to_bytes(2, "big") + rest + data), packet)

    def _open(self, key: EchoKey, packet: Packet) -> EchoFlow | None:
        source, address, identifier, target = key
        protocol = Protocol.ICMP if packet.version == 4 else Protocol.ICMPV6
        route = self.chooser.choose(int(protocol), address, 0, target, 0, "")
        assert route is not None  # the seam's promise: with "" the rules always answer
        if len(self.flows) >= ECHOES:
            self._remove(next(iter(self.flows.values())))
        flow = EchoFlow(source, int(protocol), address, identifier, target, 0, self._loop.now)
        flow.route = route
        flow.state = State.ESTABLISHED
        flow.key = key
        flow.identifier = -1
        plan = route.exit.tcp(route.target(target, 0, ""))
        if isinstance(plan, Refusal):
            flow.error = plan.message or "refused by the rules"
            flow.ended = self._loop.now
            source.send(craft.unreachable(packet, UNREACHABLE.get(plan.reason, craft.Unreachable.PROHIBITED)))
            self._tally.ended(flow)
            return None
        if self._leaves(route, packet):
            flow.identifier = self._free_identifier(packet.version)
            self._by_identifier[packet.version, flow.identifier] = flow
        self.flows[key] = flow
        self._idle.add(flow)
        return flow

    def _leaves(self, route: Route, packet: Packet) -> bool:
        """Only a direct exit carries ICMP, only with a raw socket, and only to an address."""
        if route.name or not isinstance(route.exit.udp(), UdpDirect):
            return False
        return self._open_raw(family_of(packet.target()))

    def _open_raw(self, family: int) -> bool:
        """Whether there is one."""
        if family not in self._raw:
            try:
                raw = self._raw[family] = Raw(self, family, self._underlay)
                self._loop.watch(raw.sock.fileno(), raw, READ)
            except OSError as error:
                log.warning(
                    "pings are answered here, not by their targets: no raw socket: %s", error.strerror
                )
                self._raw[family] = None
        return self._raw[family] is not None

    def _free_identifier(self, version: int) -> int:
        while True:
            self._next = self._next % 0xFFFF + 1
            if (version, self._next) not in self._by_identifier:
                return self._next

    def _send(self, flow: EchoFlow, message: bytes, packet: Packet) -> None:
        raw = self._raw[family_of(flow.target)]
        assert raw is not None
        try:
            raw.send(message, flow.target, packet.hop_limit)
        except OSError as error:
            flow.error = error.strerror or ""
            flow.source.send(craft.unreachable(packet, craft.Unreachable.NET))

    def _remove(self, flow: EchoFlow) -> None:
        self._idle.discard(flow)
        del self.flows[flow.key]
        version = 4 if len(flow.target) == 4 else 6
        self._by_identifier.pop((version, flow.identifier), None)
        flow.state = State.CLOSED
        flow.ended = self._loop.now
        self._tally.ended(flow)
        flow.settle()

    # --- what comes back from outside

    def received4(self, data: bytes) -> None:
        """An IPv4 packet that the raw socket got."""
        head = (data[0] & 0x0F) * 4 if data else 0
        if head < 20 or len(data) < head + 8:
            return
        self._received(4, data[12:16], data[head:])

    def received6(self, data: bytes, sender: bytes) -> None:
        """An ICMPv6 message."""
        if len(data) >= 8:
            self._received(6, sender, data)

    def _received(self, version: int, sender: bytes, message: bytes) -> None:
        kind, code = message[0], message[1]
        if kind == (Icmp4.ECHO_REPLY if version == 4 else Icmp6.ECHO_REPLY):
            flow = self._by_identifier.get((version, int.from_bytes(message[4:6], "big")))
            if flow is None or sender != flow.target:
                return
            flow.touched = self._loop.now
            flow.down += len(message) - 8
            sequence = int.from_bytes(message[6:8], "big")
            flow.source.send(craft.echo(sender, flow.source_address, flow.source_port, sequence, message[8:]))
            return
        quoted = message[8:]
        if len(quoted) > len(self._quoted):
            quoted = quoted[: len(self._quoted)]
        self._quoted[: len(quoted)] = quoted
        inner = self._view
        if inner.parse(0, len(quoted), quoted=True) or inner.protocol not in (Protocol.ICMP, Protocol.ICMPV6):
            return
        flow = self._by_identifier.get((version, inner.source_port))
        if flow is None or inner.target() != flow.target:
            return
        rest = int.from_bytes(message[4:8], "big")
        body = _message(
            version == 4,
            flow.source_port.to_bytes(2, "big") + quoted[inner.payload_at - 2 : inner.start + inner.length],
        )
        sent = craft.ip_packet(flow.source_address, flow.target, flow.protocol, body)
        flow.source.send(craft.icmp_error(kind, code, rest, sender, flow.source_address, quoted=sent))

    # --- errors from the source, about packets that we delivered

    def _error(self, packet: Packet) -> None:
        data = packet.payload()[: len(self._quoted)]
        self._quoted[: len(data)] = data
        inner = self._view
        if inner.parse(0, len(data), quoted=True) or not inner.has_transport:
            self._gateway.dropped["icmp: error that quotes nothing known"] += 1
            return
        source, target = inner.source(), inner.target()
        ports = inner.source_port.to_bytes(2, "big"), inner.target_port.to_bytes(2, "big")
        key = target + source + ports[1] + ports[0]
        if inner.protocol == Protocol.UDP:
            flow = self._udp.flows.get(key)
            if flow is not None and packet.icmp_type == (
                Icmp4.UNREACHABLE if inner.version == 4 else Icmp6.UNREACHABLE
            ):
                flow.error = "the application has closed its port"
                self._udp.remove(flow)
        elif inner.protocol == Protocol.TCP:
            self._to_listener(packet, inner, key)

    def _to_listener(self, packet: Packet, inner: Packet, key: bytes) -> None:
        """Translate an error about what we sent to the application back into what the listener sent."""
        flow = self._table.get(key)
        if flow is None or flow.key != key:
            return
        size = inner.address_length
        listener, alias = flow.reverse[:size], flow.reverse[size : 2 * size]
        self._quoted[inner.src_at : inner.src_at + 2 * size] = flow.reverse[: 2 * size]
        self._quoted[inner.l4 : inner.l4 + 4] = flow.reverse[2 * size :]
        rest = int.from_bytes(packet.buffer[packet.payload_at - 4 : packet.payload_at], "big")
        quoted = bytes(self._quoted[: inner.start + inner.length])
        self._gateway.send(
            craft.icmp_error(packet.icmp_type, packet.icmp_code, rest, alias, listener, quoted=quoted)
        )

    def close(self) -> None:
        """Close the raw sockets."""
        for raw in self._raw.values():
            if raw is not None:
                self._loop.close(raw.sock)


def _message(v4: bool, rest: bytes) -> bytes:
    """An echo request around identifier, sequence and data; the kernel sums ICMPv6 itself."""
    if not v4:
        return bytes((Icmp6.ECHO, 0, 0, 0)) + rest
    message = bytes((Icmp4.ECHO, 0, 0, 0)) + rest
    checksum = finish(sum16(message, 0, len(message), 0))
    return message[:2] + checksum.to_bytes(2, "big") + rest
