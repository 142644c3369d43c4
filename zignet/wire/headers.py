"""From an IP packet to a frame and back (docs/protocol.md §6): the slow path, and the oracle of the compiled one.

Out goes the packet without its IP header; addresses are taken out of its checksum. In comes a frame, and gets
the header that the receiver chooses. One packet at a time; fragments, IPv6 extension headers and protocols
other than TCP, UDP and ICMP are not carried this way.
"""

from __future__ import annotations

from struct import Struct

from nat.checksum import CHECKSUM_AT_TCP, CHECKSUM_AT_UDP, adjust, adjust_udp, delta, finish, sum16
from nat.checksum import transport_checksum as checksum_of
from nat.header import (
    ICMP_CHECKSUM,
    ICMP_LENGTH,
    ICMP_TYPE,
    IP4_CHECKSUM,
    IP4_DONT_FRAGMENT,
    IP4_LENGTH,
    IP4_TOS,
    IP6_LENGTH,
    TCP_DATA_OFFSET,
    TCP_LENGTH,
    UDP_DATAGRAM_LENGTH,
    UDP_LENGTH,
)
from nat.header import Protocol as Ip
from nat.packet import Packet, Problem
from zignet.wire import icmp
from zignet.wire.frame import FRAME_FLAGS, FRAME_HEADER, BadFrame, Flag, Protocol, is_known

__all__ = ["check_body", "rebuild", "strip", "traffic_class"]

_IP4 = Struct("!BBHHHBBH4s4s")
_IP6 = Struct("!IHBB16s16s")


def strip(packet: bytes | bytearray | memoryview, *, partial: bool = False) -> bytes:
    """The frame of one whole IP packet; bytes behind the packet's own length are cut.

    The packet's checksums are complete, or with `partial` (TCP and UDP) its transport checksum is not there yet.
    Raises BadFrame where the packet is malformed, or is not one of those carried this way.
    """
    view = Packet(bytearray(packet))
    problem = view.parse(0, len(packet))
    if problem:
        raise BadFrame(f"not an IP packet: {Problem(problem).name}")
    v6 = view.version == 6
    if view.fragment or (v6 and view.l4 != IP6_LENGTH):
        raise BadFrame("fragments and extension headers are not carried")
    body = view.buffer[view.l4 : view.l4 + view.l4_length]
    source, target = view.source(), view.target()
    flags = Flag.V6 if v6 else Flag(0)
    if partial:
        flags |= Flag.PARTIAL
    if view.protocol in (Ip.TCP, Ip.UDP):
        number = Protocol(view.protocol)
        _checksum_out(number, body, flags, source + target)
    elif view.protocol == (Ip.ICMPV6 if v6 else Ip.ICMP) and not partial:
        number = Protocol.ICMP
        body = _icmp_out(body, source, target, view.transport_sum_ok())
    else:
        raise BadFrame("neither TCP, UDP nor ICMP" if not partial else "neither TCP nor UDP, but partial")
    return bytes((number, flags, traffic_class(view), view.hop_limit)) + bytes(body)


def traffic_class(view: Packet) -> int:
    """DSCP and ECN of a packet."""
    if view.version == 4:
        return int(view.buffer[view.start + IP4_TOS])
    return (int.from_bytes(view.buffer[view.start : view.start + 2], "big") >> 4) & 0xFF


def _checksum_out(number: Protocol, body: bytearray, flags: int, addresses: bytes) -> None:
    """Make the checksum of a TCP or UDP packet what it would be if both addresses were zero."""
    at = CHECKSUM_AT_TCP if number == Protocol.TCP else CHECKSUM_AT_UDP
    if flags & Flag.PARTIAL:
        body[at : at + 2] = bytes(2)
    change = delta(addresses, bytes(len(addresses)))
    check_body(number, flags, body)
    if flags & Flag.PARTIAL:
        return
    if number == Protocol.TCP:
        adjust(body, at, change)
    else:
        adjust_udp(body, at, change)


def _icmp_out(body: bytearray, source: bytes, target: bytes, sum_ok: bool) -> bytearray:
    v6 = len(source) == 16
    kind = body[ICMP_TYPE]
    if icmp.stays_here(v6, kind):
        raise BadFrame("an ICMP message that means nothing beyond its link")
    if icmp.is_error(v6, kind):
        if not sum_ok:
            raise BadFrame("an ICMP error whose checksum is wrong")
        return icmp.outward(body, source, target)
    if v6:
        adjust(body, ICMP_CHECKSUM, delta(source + target, bytes(32)))
    return body


def rebuild(
    frame: bytes | bytearray | memoryview, source: bytes, target: bytes, *, traffic: int | None = None
) -> bytes:
    """The IP packet of a frame, from `source` to `target`, its checksums complete.

    `traffic` replaces the frame's traffic class (`ecn.combine`). Raises BadFrame where the frame is malformed,
    or of a protocol or with flags that it can't have; ValueError where the addresses are not of its version.
    """
    if not is_known(frame) or frame[0] not in (Protocol.TCP, Protocol.UDP, Protocol.ICMP):
        raise BadFrame("not a frame of TCP, UDP or ICMP")
    if frame[FRAME_FLAGS] & Flag.EXIT:
        raise BadFrame("a frame of an exit flow")
    number, flags, traffic_class, hops = Protocol(frame[0]), frame[1], frame[2], frame[3]
    v6 = bool(flags & Flag.V6)
    if len(source) != len(target) or len(source) != (16 if v6 else 4):
        raise ValueError("the addresses are not of the frame's version")
    body = bytearray(frame[FRAME_HEADER:])
    if len(body) > 0xFFFF - (0 if v6 else IP4_LENGTH):
        raise BadFrame("too long for an IP packet")
    check_body(number, flags, body)
    if number == Protocol.ICMP:
        body = _icmp_in(body, source, target)
    else:
        _checksum_in(number, body, flags, source, target)
    protocol = Ip.ICMPV6.value if v6 and number == Protocol.ICMP else number.value
    return (
        _ip_header(traffic_class if traffic is None else traffic, hops, protocol, source, target, len(body))
        + body
    )


def check_body(number: Protocol, flags: int, body: bytearray) -> None:
    """Raise BadFrame where lengths in a transport header can't be true, or a checksum is not where it must be."""
    least = {Protocol.TCP: TCP_LENGTH, Protocol.UDP: UDP_LENGTH, Protocol.ICMP: ICMP_LENGTH}[number]
    if len(body) < least:
        raise BadFrame("shorter than its transport header")
    partial = flags & Flag.PARTIAL
    if number == Protocol.TCP:
        if not TCP_LENGTH <= (body[TCP_DATA_OFFSET] >> 4) * 4 <= len(body):
            raise BadFrame("a TCP header that contradicts itself")
        if partial and any(body[CHECKSUM_AT_TCP : CHECKSUM_AT_TCP + 2]):
            raise BadFrame("partial, but with a checksum")
    elif number == Protocol.UDP:
        size = int.from_bytes(body[UDP_DATAGRAM_LENGTH : UDP_DATAGRAM_LENGTH + 2], "big")
        if not UDP_LENGTH <= size <= len(body) or (partial and size != len(body)):
            raise BadFrame("a UDP length that can't be true")
        summed = any(body[CHECKSUM_AT_UDP : CHECKSUM_AT_UDP + 2])
        if partial and summed:
            raise BadFrame("partial, but with a checksum")
        if flags & Flag.V6 and not partial and not summed:
            raise BadFrame("UDP without a checksum over IPv6")  # RFC 8200 §8.1


def _checksum_in(number: Protocol, body: bytearray, flags: int, source: bytes, target: bytes) -> None:
    at = CHECKSUM_AT_TCP if number == Protocol.TCP else CHECKSUM_AT_UDP
    if flags & Flag.PARTIAL:
        value = checksum_of(body, 0, len(body), source=source, target=target, protocol=number.value)
        if value == 0 and number == Protocol.UDP:
            value = 0xFFFF  # RFC 768: 0 would say "none"
        body[at : at + 2] = value.to_bytes(2, "big")
        return
    change = delta(bytes(2 * len(source)), source + target)
    if number == Protocol.TCP:
        adjust(body, at, change)
    else:
        adjust_udp(body, at, change)


def _icmp_in(body: bytearray, source: bytes, target: bytes) -> bytearray:
    v6 = len(source) == 16
    kind = body[ICMP_TYPE]
    if icmp.stays_here(v6, kind):
        raise BadFrame("an ICMP message that means nothing beyond its link")
    if icmp.is_error(v6, kind):
        return icmp.inward(body, source, target)
    if v6:
        adjust(body, ICMP_CHECKSUM, delta(bytes(32), source + target))
    return body


def _ip_header(traffic: int, hops: int, protocol: int, source: bytes, target: bytes, length: int) -> bytes:
    if len(source) == 16:
        return _IP6.pack(6 << 28 | traffic << 20, length, protocol, hops, source, target)
    fields = (0x45, traffic, IP4_LENGTH + length, 0, IP4_DONT_FRAGMENT, hops, protocol)
    head = bytearray(_IP4.pack(*fields, 0, source, target))
    head[IP4_CHECKSUM : IP4_CHECKSUM + 2] = finish(sum16(head, 0, IP4_LENGTH, 0)).to_bytes(2, "big")
    return bytes(head)
