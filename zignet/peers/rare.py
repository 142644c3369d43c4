"""What the packet path hands over because it is rare: fragments, ICMP errors, packets too large for the path, control
frames, and what must be refused. Plain Python, one packet at a time.

Outward: `slow` ─► reassemble | strip ─► a frame, or pieces of one.  Inward: `slow_frame` ─► join pieces | rebuild.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from nat import craft
from nat.checksum import finish, sum16
from nat.header import IP4_LENGTH, IP6_LENGTH, TCP_ACK, TCP_FLAGS, TCP_LENGTH, TCP_SYN
from nat.header import Protocol as Ip
from nat.packet import Packet, Problem
from zignet.wire import (
    FRAME_HEADER,
    BadFrame,
    Budget,
    ExitFrame,
    Flag,
    Fragments,
    Protocol,
    Refusal,
    Refused,
    clamp_mss,
    is_known,
    parse_exit,
    rebuild,
    split,
    strip,
    to_exit,
    unwrap,
    wrap,
)
from zignet.wire.icmp import is_error

if TYPE_CHECKING:
    from collections import Counter

    from nat.engine import Engine
    from zignet.peers.destinations import Destination
    from zignet.peers.guest import Guests
    from zignet.peers.packets import Packets
    from zignet.peers.peer import Link
    from zignet.peers.send import Sender

__all__ = ["Rare"]

REFUSALS_PER_S = 20  # to all peers together
MOST_TURNED_OUT = 1_024  # addresses
LEAST_MTU6 = 1280  # bytes (RFC 8200 §5)
NUMBER = 4  # bytes, of a destination's number (protocol §6, exit flows)
UNREACHABLE: Mapping[int, craft.Unreachable] = {
    Refusal.PORT: craft.Unreachable.PORT,
    Refusal.HOST: craft.Unreachable.HOST,
    Refusal.NETWORK: craft.Unreachable.NET,
    Refusal.TOO_LARGE: craft.Unreachable.FRAGMENTATION_NEEDED,
}
LEAST_MTU = {4: 576, 16: 1280}  # bytes: RFC 1122 §3.3.3's, and RFC 8200 §5


class Rare:
    """The slow path of one node, both directions."""

    def __init__(
        self, engine: Engine, sender: Sender, dropped: Counter[str], own4: bytes, own6: bytes
    ) -> None:
        self._engine = engine
        self._gateway = engine.gateway
        self._loop = engine.loop
        self._sender = sender
        self._dropped = dropped
        self._own = {4: own4, 16: own6}
        self._packet = Packet(engine.gateway.raw)
        self._budget = Budget()
        self.destinations: Mapping[int, Destination] = {}  # by number
        self.guests: Guests | None = None
        self._turned_out: dict[bytes, None] = {}  # addresses, longest ago first
        self.packets: Packets | None = None
        self._refused_in: tuple[int, int] = (0, 0)  # a second, and how many refusals left us in it

    # --- outward

    def nobody(self, at: int, length: int) -> None:
        """A packet for an address in ZigNet's range that no peer has: its sender is told."""
        self._dropped["to peers: nobody has this address"] += 1
        packet = self._packet
        if packet.parse(at, length, self._gateway.segment_size() != 0):
            return
        if packet.protocol == Ip.TCP and packet.tcp_flags & TCP_ACK and packet.target() in self._turned_out:
            self._gateway.send(craft.tcp_reset(packet))
        else:
            self._gateway.send(craft.unreachable(packet, craft.Unreachable.HOST))

    def turned_out(self, *addresses: bytes) -> None:
        """Whoever had these addresses is not admitted any more: connections with it end at their next segment."""
        for address in addresses:
            self._turned_out[address] = None
        while len(self._turned_out) > MOST_TURNED_OUT:
            del self._turned_out[next(iter(self._turned_out))]

    def let_in(self, *addresses: bytes) -> None:
        """Somebody has these addresses."""
        for address in addresses:
            self._turned_out.pop(address, None)

    def slow(self, link: Link, at: int, length: int) -> None:
        """A packet for a peer in the gateway's buffer, which the packet path does not carry as it is."""
        packet, gateway = self._packet, self._gateway
        super_packet = gateway.segment_size()
        problem = packet.parse(at, length, super_packet != 0)
        if problem:
            self._dropped["to peers: " + Problem(problem).name.lower().replace("_", " ")] += 1
            return
        if packet.fragment:
            whole = self._engine.fragments.add(packet, self._loop.now)
            if whole is not None:
                gateway.feed(whole)
            return
        try:
            if self._is_about_another(link, packet):
                self.send(link, wrap(packet.whole(), back=True, own=packet.source()))
                return
            for frame in self._stripped(packet, super_packet):
                self.send(link, frame)
        except ValueError as error:  # BadFrame, or too large even for fragments
            self._dropped[f"to peers: {error}"] += 1
            if packet.protocol not in (Ip.TCP, Ip.UDP, Ip.ICMP, Ip.ICMPV6):
                gateway.send(craft.unreachable(packet, craft.Unreachable.PROHIBITED))

    def slow_exit(self, link: Link, at: int, length: int, number: int, back: bool) -> None:
        """The same for a packet of an exit flow."""
        gateway = self._gateway
        problem = self._packet.parse(at, length, gateway.segment_size() != 0)
        if problem or self._packet.fragment:
            self._dropped["exit flows: neither TCP nor UDP"] += 1
            return
        try:
            for frame in self._stripped(self._packet, gateway.segment_size()):
                self.send(link, to_exit(frame, number, back=back))
        except ValueError as error:
            self._dropped[f"exit flows: {error}"] += 1

    def _is_about_another(self, link: Link, packet: Packet) -> bool:
        """Whether our kernel tells a peer that it could not send one of its whole packets on."""
        quoted = self._quoted(packet)
        return (
            quoted is not None
            and self.packets is not None
            and quoted[1] != self._own[packet.address_length]
            and self.packets.admits(link)
        )

    def _quoted(self, packet: Packet) -> tuple[bytes, bytes] | None:
        """Source and target of the packet that an ICMP error quotes; None if it is none."""
        v6 = packet.version == 6
        head = IP6_LENGTH if v6 else IP4_LENGTH
        if packet.protocol != (Ip.ICMPV6 if v6 else Ip.ICMP) or not is_error(v6, packet.icmp_type):
            return None
        size, quote = packet.address_length, packet.payload()[:head]
        if len(quote) < head:
            return None
        return quote[head - 2 * size : head - size], quote[head - size :]

    def slow_whole(self, link: Link, at: int, length: int, back: bool) -> None:
        """The same for a packet that leaves with its IP header; `back`: to the peer whose it is."""
        packet, gateway = self._packet, self._gateway
        super_packet = gateway.segment_size()
        if packet.parse(at, length, super_packet != 0):
            self._dropped["to exits: malformed"] += 1
            return
        if packet.fragment:
            whole = self._engine.fragments.add(packet, self._loop.now)
            if whole is not None:
                gateway.feed(whole)
            return
        partial = gateway.header != 0 and gateway.raw[0] & 1 != 0
        try:
            if packet.tcp_flags & TCP_SYN:
                self.clamp(link, packet.l4, packet.l4 + packet.l4_length, packet.l4 - at, partial)
            own = self._own_source(packet) if back else b""
            for piece in self._cut(packet, super_packet):
                self.send(link, wrap(piece, back=back, partial=partial, own=own))
        except ValueError as error:
            self._dropped[f"to exits: {error}"] += 1
            if not back:
                gateway.send(craft.unreachable(packet, craft.Unreachable.PROHIBITED))

    def _own_source(self, packet: Packet) -> bytes:
        """The source of an answer, if it is this host itself; b"" if not. Raises BadFrame: no answer has this one."""
        source = packet.source()
        if self.packets is None or self.packets.may_come(source):
            return b""
        if not self.packets.is_own(source):
            raise BadFrame("from where no answer comes")
        return source

    def named(self, link: Link, packet: Packet, number: int, meaning: str) -> None:
        """A packet in the gateway's buffer leaves with what its number means: a SYN, or a datagram nobody answered."""
        end = packet.l4 + packet.l4_length
        partial = self._gateway.header != 0 and self._gateway.raw[0] & 1 != 0
        try:
            if packet.protocol == Ip.TCP:
                self.clamp(link, packet.l4, end, NUMBER, partial)
            for frame in self._stripped(packet, self._gateway.segment_size()):
                self.send(link, to_exit(frame, number, meaning))
        except ValueError as error:
            self._dropped[f"exit flows: {error}"] += 1

    def _stripped(self, packet: Packet, super_packet: int) -> Iterator[bytes]:
        partial = self._gateway.header != 0 and self._gateway.raw[0] & 1 != 0
        for piece in self._cut(packet, super_packet):
            yield strip(piece, partial=partial)

    def _cut(self, packet: Packet, size: int) -> Iterator[bytes]:
        """One packet, or the datagrams of a super-datagram whose frames do not fit the path."""
        whole = packet.whole()
        if not size or packet.protocol != Ip.UDP:
            yield whole
            return
        head = packet.payload_at - packet.start
        for start in range(head, len(whole), size):
            payload = whole[start : start + size]
            datagram = bytearray(whole[:head] + payload)
            datagram[head - 4 : head - 2] = (8 + len(payload)).to_bytes(2, "big")
            if packet.version == 4:
                datagram[2:4] = len(datagram).to_bytes(2, "big")
                datagram[10:12] = bytes(2)
                datagram[10:12] = finish(sum16(datagram, 0, 20, 0)).to_bytes(2, "big")
            else:
                datagram[4:6] = (len(datagram) - 40).to_bytes(2, "big")
            yield bytes(datagram)

    def send(self, link: Link, frame: bytes, *, is_data: bool = True) -> None:
        """Send a frame on the path in use, in pieces if need be."""
        session = link.ready(self._loop.now)
        if session is None:
            self._dropped["to peers: the session ended meanwhile"] += 1
            return
        if len(frame) <= link.room:
            self._sender.frames(link, session, [frame], link.address, is_data)
            return
        link.number = (link.number + 1) & 0xFFFFFFFF
        self._sender.frames(link, session, split(frame, link.number, link.room), link.address, is_data)

    def expire(self) -> None:
        """Give up unfinished frames that are too old; to be called now and then."""
        self._budget.expire(self._loop.now)

    def clamp(self, link: Link, at: int, end: int, extra: int, partial: bool) -> None:
        """The MSS of a SYN in the gateway's buffer, lowered to what the path carries (protocol §6)."""
        clamp_mss(self._gateway.raw, at, end, link.room - FRAME_HEADER - extra - TCP_LENGTH, partial=partial)

    # --- inward

    def slow_frame(self, link: Link, session: Any, frame: bytes) -> None:
        """A frame that the packet path does not write to the TUN as it is."""
        if frame[0] == Protocol.FRAGMENT and is_known(frame):
            self._piece(link, session, frame)
        elif frame[0] == Protocol.WHOLE and is_known(frame):
            self._whole(link, frame)
        elif not is_known(frame):
            self.refuse(link, frame, Refusal.UNKNOWN_PROTOCOL)
        elif frame[1] & Flag.EXIT and frame[0] != Protocol.ICMP:
            self._exit(link, frame)
        elif link.services is not None and not link.services.admits(frame, self._loop.now):
            self.closed(link, frame)
        else:
            self._deliver(link, frame)

    def _piece(self, link: Link, session: Any, frame: bytes) -> None:
        if link.fragments is None:
            link.fragments = Fragments(self._budget)
        whole = link.fragments.add(frame, self._loop.now)
        if whole is None:
            return
        if whole[0] in (Protocol.FRAGMENT, Protocol.CONTROL, Protocol.BUNDLE):
            self._dropped["from peers: a fragment of what is not sent in fragments"] += 1
        else:
            self.slow_frame(link, session, whole)

    def _whole(self, link: Link, frame: bytes) -> None:
        """A whole packet that is neither TCP nor UDP, or came in pieces."""
        packets, back = self.packets, bool(frame[1] & Flag.BACK)
        if packets is None or not (back or packets.admits(link)):
            self.refused_whole(link, frame)
            return
        size = 16 if frame[FRAME_HEADER : FRAME_HEADER + 1] >= b"\x60" else 4
        peer = link.peer.address6 if size == 16 else link.peer.address4
        try:
            packet = unwrap(frame, self._own[size] if back else peer, peer)
        except BadFrame as error:
            self._dropped[f"whole packets: {error}"] += 1
            return
        view = Packet(bytearray(packet))
        view.parse(0, len(packet))
        if not (self._may_come(link, view, peer) if back else self._may_leave(link, view)):
            self.refused_whole(link, frame)
        elif size == 16 and len(packet) > packets.mtu and not back:  # no router cuts it
            for piece in craft.fragments6(packet, LEAST_MTU6, int.from_bytes(os.urandom(4), "big")):
                self._gateway.send(piece)
        else:
            self._gateway.send(packet)

    def _may_leave(self, link: Link, view: Packet) -> bool:
        """Whether this host sends a peer's packet on. An error tells a host of what that has sent."""
        assert self.packets is not None
        quoted = self._quoted(view)
        if quoted is not None and quoted[0] != view.target():
            return False
        port = view.target_port if view.protocol in (Ip.TCP, Ip.UDP) else 0
        key = view.target() + bytes((view.protocol,)) + port.to_bytes(2, "big")
        return self.packets.stand_in(link, key) is not None

    def _may_come(self, link: Link, view: Packet, peer: bytes) -> bool:
        """Whether an answer may come from this peer. Of an error what counts is what it is about: routers send it."""
        assert self.packets is not None
        quoted = self._quoted(view)
        if quoted is not None:
            source = view.source()
            return self.packets.near(link, quoted[1]) is not None and (
                source == peer or self.packets.may_come(source)
            )
        if view.protocol == Ip.TCP and view.tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN:
            return False
        if view.protocol in (Ip.ICMP, Ip.ICMPV6) and view.icmp_type == (8 if view.version == 4 else 128):
            return False
        services, ports = link.services, (view.target_port, view.source_port)
        asked = (
            view.protocol != Ip.UDP or services is None or services.expects(Ip.UDP, *ports, self._loop.now)
        )
        return asked and self.packets.near(link, view.source()) is not None

    def refused_whole(self, link: Link, frame: bytes) -> None:
        """A whole packet is not taken. Who sent it learns why, but not of an answer."""
        if frame[1] & Flag.BACK:
            self._dropped["from exits: an answer that nobody asked for"] += 1
        elif self.packets is None or not self.packets.admits(link):
            self.refuse(link, frame, Refusal.WHOLE_PACKETS)
        else:
            self.refuse(link, frame, Refusal.FORBIDDEN)

    def _exit(self, link: Link, frame: bytes) -> None:
        """A frame of an exit flow that names its destination, or came in pieces."""
        try:
            flow = parse_exit(frame)
            if not flow.back:
                self._guest(link, flow, frame)
                return
            destination = self.destinations.get(flow.number)
            if destination is None or destination.peer is not link.peer:
                self._dropped["exit flows: an answer for nobody"] += 1
                return
            size = 16 if frame[1] & Flag.V6 else 4
            packet = rebuild(flow.frame, destination.address(size), self._own[size])
        except BadFrame as error:
            self._dropped[f"exit flows: {error}"] += 1
            return
        if frame[0] == Protocol.UDP:
            destination.answered(self._loop.now)
        elif flow.frame[FRAME_HEADER + TCP_FLAGS] & (TCP_SYN | TCP_ACK) == TCP_SYN:
            self._dropped["exit flows: a connection the wrong way round"] += 1
            return
        self._gateway.send(packet)

    def _guest(self, link: Link, flow: ExitFrame, frame: bytes) -> None:
        guest = link.guest or (self.guests.admit(link) if self.guests is not None else None)
        if guest is not None:
            guest.frame(flow, frame)
        elif flow.frame[0] == Protocol.TCP and len(flow.frame) > TCP_LENGTH and flow.frame[17] & TCP_ACK:
            self._reset(
                link, flow
            )  # a refusal quotes too little of it for a reset that its application believes
        else:
            self.refuse(link, frame, Refusal.FORBIDDEN)

    def _reset(self, link: Link, flow: ExitFrame) -> None:
        """Answer a segment of a connection that is not there."""
        self._dropped["exit flows: reset"] += 1
        reset = self._reset_to(flow.frame)
        if reset:
            self.send(link, to_exit(reset, flow.number, back=True), is_data=False)

    def closed(self, link: Link, frame: bytes) -> None:
        """The peer may not send this to this host, or may not any more: it is told so that its application sees it."""
        if frame[0] != Protocol.TCP or frame[FRAME_HEADER + TCP_FLAGS] & (TCP_SYN | TCP_ACK) == TCP_SYN:
            self.refuse(link, frame, Refusal.FORBIDDEN)
            return
        self._dropped["from peers: reset, the service is closed to them"] += 1
        reset = self._reset_to(frame)
        if reset:
            self.send(link, reset, is_data=False)

    def _reset_to(self, frame: bytes) -> bytes:
        """The frame with the reset that answers a segment; empty where nothing does."""
        own = self._own[16 if frame[1] & Flag.V6 else 4]
        segment = bytearray(rebuild(frame, own, own))
        packet = Packet(segment)
        if packet.parse(0, len(segment)):
            return b""
        reset = craft.tcp_reset(packet)
        return strip(reset) if reset else b""

    def _deliver(self, link: Link, frame: bytes) -> None:
        size = 16 if frame[1] & Flag.V6 else 4
        source = link.peer.address6 if size == 16 else link.peer.address4
        try:
            packet = rebuild(frame, source, self._own[size])
        except BadFrame as error:
            self._dropped[f"from peers: {error}"] += 1
            return
        self._gateway.send(packet)

    def refuse(self, link: Link, frame: bytes, reason: Refusal) -> None:
        """Tell the sender that a frame was not taken, at a bounded rate."""
        self._dropped[f"from peers: refused, {reason.name.lower().replace('_', ' ')}"] += 1
        second = int(self._loop.now)
        last, count = self._refused_in
        if second != last:
            count = 0
        if count < REFUSALS_PER_S:
            self._refused_in = (second, count + 1)
            self.send(link, Refused.of(frame, reason).encode(), is_data=False)

    def refused(self, link: Link, refusal: Refused) -> None:
        """A peer did not take a packet of ours: its application is told, by ICMP."""
        self._dropped["to peers: refused there"] += 1
        if refusal.flags & Flag.EXIT:
            self._exit_refused(link, refusal)
            return
        if refusal.protocol == Protocol.WHOLE:
            self._whole_refused(link, refusal)
            return
        v6 = bool(refusal.flags & Flag.V6)
        peer, own = (link.peer.address6, self._own[16]) if v6 else (link.peer.address4, self._own[4])
        protocol = Ip.ICMPV6 if v6 and refusal.protocol == Protocol.ICMP else refusal.protocol
        quoted = craft.ip_packet(own, peer, protocol, refusal.quote)
        # Administratively prohibited: RFC 4443 §3.1, RFC 1812 §5.2.7.1
        kind, code = (1, 1) if v6 else (3, 13)
        self._gateway.send(craft.icmp_error(kind, code, 0, peer, own, quoted=quoted))

    def _whole_refused(self, link: Link, refusal: Refused) -> None:
        """The exit does not send this on: a RST, or ICMP "administratively prohibited" from the far end."""
        quote, v6 = refusal.quote, refusal.quote[0] >> 4 == 6
        size, head = (16, IP6_LENGTH) if v6 else (4, IP4_LENGTH)
        own, far = self._own[size], quote[head - size : head]
        protocol, first = quote[6 if v6 else 9], quote[head : head + 8]
        if refusal.flags & Flag.BACK or self.packets is None or self.packets.near(link, far) is None:
            return
        if protocol == Ip.TCP:
            source, target, sequence = struct.unpack("!HHI", first)
            self._gateway.send(craft.tcp_reset_to(far, target, own, source, seq=0, ack=sequence + 1))
        elif protocol != (Ip.ICMPV6 if v6 else Ip.ICMP) or not is_error(v6, first[0]):
            kind, code = craft.code_of(craft.Unreachable.PROHIBITED, size)
            quoted = craft.ip_packet(own, far, protocol, first)
            self._gateway.send(craft.icmp_error(kind, code, 0, far, own, quoted=quoted))

    def _exit_refused(self, link: Link, refusal: Refused) -> None:
        """The exit could not do it: the application sees what the far end would have made it see."""
        destination = self.destinations.get(refusal.number)
        if destination is None or destination.peer is not link.peer or refusal.flags & Flag.BACK:
            return
        size = 16 if refusal.flags & Flag.V6 else 4
        far, own, quote = destination.address(size), self._own[size], refusal.quote
        udp = refusal.protocol == Protocol.UDP
        source, target, sequence = struct.unpack("!HHI", quote)
        if udp and refusal.reason == Refusal.NUMBER_UNKNOWN:
            destination.forgotten()  # the next datagram says it again, and a lost one is the application's to repeat
            return
        if refusal.reason == Refusal.TOO_LARGE and not LEAST_MTU[size] <= refusal.mtu:
            return  # nonsense, or an attack on this host's memory of paths
        if udp or refusal.protocol == Protocol.TCP:
            how, now = refusal.reason, self._loop.now
            destination.refused(source, target, v6=size == 16, udp=udp, reason=how, now=now)
        code = UNREACHABLE.get(refusal.reason, craft.Unreachable.PROHIBITED)
        if refusal.protocol == Protocol.TCP and code in (
            craft.Unreachable.PORT,
            craft.Unreachable.PROHIBITED,
        ):
            self._gateway.send(craft.tcp_reset_to(far, target, own, source, seq=0, ack=sequence + 1))
            return
        if refusal.protocol in (Protocol.TCP, Protocol.UDP):
            kind, number = craft.code_of(code, size)
            quoted = craft.ip_packet(own, far, refusal.protocol, quote)
            mtu = refusal.mtu if refusal.reason == Refusal.TOO_LARGE else 0
            self._gateway.send(craft.icmp_error(kind, number, mtu, far, own, quoted=quoted))
