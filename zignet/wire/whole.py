"""Whole IP packets in frames of protocol 4 (docs/protocol.md §6): the slow path, and the oracle of the compiled one.

    wrap(packet)        on its way: to the exit, or with `back` from there
    unwrap(frame, …)    the other way, with the address that the receiver chooses

One end of such a packet is far away, and its address crosses as it is. The other is the application's host, which the
exit knows by an address of its own choosing, so that address is zero on the wire: each side writes the one it uses.
"""

from __future__ import annotations

from collections.abc import Mapping

from nat.checksum import (
    CHECKSUM_AT_TCP,
    CHECKSUM_AT_UDP,
    adjust,
    adjust_udp,
    delta,
    finish,
    pseudo_sum,
    sum16,
)
from nat.checksum import transport_checksum as checksum_of
from nat.header import (
    ICMP_CHECKSUM,
    ICMP_LENGTH,
    ICMP_TYPE,
    IP4_CHECKSUM,
    IP4_LENGTH,
    IP4_SOURCE,
    IP4_TARGET,
    IP4_TOS,
    IP4_TOTAL_LENGTH,
    IP4_TTL,
    IP6_HOP_LIMIT,
    IP6_LENGTH,
    IP6_PAYLOAD_LENGTH,
    IP6_SOURCE,
    IP6_TARGET,
)
from nat.header import Protocol as Ip
from nat.packet import Packet, Problem
from zignet.wire import icmp
from zignet.wire.frame import (
    FRAME_FLAGS,
    FRAME_HEADER,
    FRAME_HOPS,
    FRAME_TRAFFIC,
    BadFrame,
    Flag,
    Protocol,
    is_known,
)
from zignet.wire.headers import check_body, traffic_class

__all__ = ["unwrap", "wrap"]

_CHECKSUMS: Mapping[int, int] = {Ip.TCP: CHECKSUM_AT_TCP, Ip.UDP: CHECKSUM_AT_UDP}


def wrap(
    packet: bytes | bytearray | memoryview, *, back: bool = False, partial: bool = False, own: bytes = b""
) -> bytes:
    """The frame of one whole IP packet; bytes behind the packet's own length are cut.

    `partial`: the transport checksum is not there yet (TCP and UDP). `own`: the exit's own address, which crosses as
    zero where the exit itself answers with an ICMP error. Raises BadFrame where the packet is malformed, a fragment,
    has options or extension headers, or is an ICMP message that does not leave its link.
    """
    view = Packet(bytearray(packet))
    problem = view.parse(0, len(packet))
    if problem:
        raise BadFrame(f"not an IP packet: {Problem(problem).name}")
    result = _plain(view)
    size = view.address_length
    near = _near_at(size, back)
    address, zero = bytes(result[near : near + size]), bytes(size)
    error = _is_error(view.protocol, size, result[view.l4 :])
    flags = (Flag.BACK if back else Flag(0)) | (Flag.PARTIAL if partial else Flag(0))
    if partial and view.protocol not in _CHECKSUMS:
        raise BadFrame("neither TCP nor UDP, but partial")
    if error:
        if not view.transport_sum_ok():
            raise BadFrame("an ICMP error whose checksum is wrong")
        _blank_quote(result, view.l4, size, back, address)
    else:
        _transport_out(result, view, flags, delta(address, zero))
    if back and own and result[view.src_at : view.src_at + size] == own:
        if not error:
            raise BadFrame("the exit's own packet")
        result[view.src_at : view.src_at + size] = zero
    result[near : near + size] = zero
    head = bytes((Protocol.WHOLE, flags, traffic_class(view), view.hop_limit))
    _blank_header(result)
    return head + bytes(result)


def unwrap(frame: bytes | bytearray | memoryview, near: bytes, peer: bytes = b"") -> bytes:
    """The IP packet of a frame, its checksums complete, with `near` as the address of the application's host.

    `peer`: the exit's address here, which stands for itself. Raises BadFrame where the frame is malformed.
    """
    if not is_known(frame) or frame[0] != Protocol.WHOLE:
        raise BadFrame("not a frame of a whole packet")
    flags, back = frame[FRAME_FLAGS], bool(frame[FRAME_FLAGS] & Flag.BACK)
    result = bytearray(frame[FRAME_HEADER:])
    size = len(near)
    head = IP4_LENGTH if size == 4 else IP6_LENGTH
    if len(result) < head or result[0] >> 4 != (4 if size == 4 else 6) or len(result) > 0xFFFF:
        raise BadFrame("not an IP packet of this version")
    _fill_header(result, frame[FRAME_TRAFFIC], frame[FRAME_HOPS])
    at = _near_at(size, back)
    if any(result[at : at + size]):
        raise BadFrame("a whole packet that tells an address of ours")
    result[at : at + size] = near
    view = Packet(result)
    if view.parse(0, len(result), verify=False):
        raise BadFrame("not an IP packet")
    body = _plain(view)
    error = _is_error(view.protocol, size, body[head:])
    if not any(body[view.src_at : view.src_at + size]):
        if not (back and error and len(peer) == size):
            raise BadFrame("a whole packet from nowhere")
        body[view.src_at : view.src_at + size] = peer
    if error:
        _fill_quote(body, head, size, back, near)
    else:
        _transport_in(body, view, flags, near)
    if size == 4:
        _put16(body, IP4_CHECKSUM, finish(sum16(body, 0, head, 0)))
    return bytes(body)


def _near_at(size: int, back: bool) -> int:
    """Where the address of the application's host stands."""
    if size == 4:
        return IP4_TARGET if back else IP4_SOURCE
    return IP6_TARGET if back else IP6_SOURCE


def _plain(view: Packet) -> bytearray:
    """A copy of the packet, if its transport header stands right behind the IP header."""
    if view.fragment or view.l4 - view.start != (IP4_LENGTH if view.version == 4 else IP6_LENGTH):
        raise BadFrame("fragments, options and extension headers are not carried")
    return bytearray(view.whole())


def _is_error(protocol: int, size: int, message: bytearray) -> bool:
    """Whether it is an ICMP error."""
    if protocol != (Ip.ICMP if size == 4 else Ip.ICMPV6):
        return False
    if icmp.stays_here(size == 16, message[ICMP_TYPE]):
        raise BadFrame("an ICMP message that means nothing beyond its link")
    return icmp.is_error(size == 16, message[ICMP_TYPE])


# the IP header: what stands in the frame's header, what follows from the frame's length, and the checksum are zero


def _blank_header(packet: bytearray) -> None:
    if packet[0] >> 4 == 4:
        packet[IP4_TOS] = packet[IP4_TTL] = 0
        _put16(packet, IP4_TOTAL_LENGTH, 0)
        _put16(packet, IP4_CHECKSUM, 0)
    else:
        packet[0], packet[1] = 0x60, packet[1] & 0x0F
        packet[IP6_HOP_LIMIT] = 0
        _put16(packet, IP6_PAYLOAD_LENGTH, 0)


def _fill_header(packet: bytearray, traffic: int, hops: int) -> None:
    blank = packet[:]
    _blank_header(blank)
    if blank != packet:
        raise BadFrame("a whole packet in which a field is set that must be zero")
    if packet[0] >> 4 == 4:
        packet[IP4_TOS], packet[IP4_TTL] = traffic, hops
        _put16(packet, IP4_TOTAL_LENGTH, len(packet))
    else:
        packet[0] |= traffic >> 4
        packet[1] |= (traffic & 0x0F) << 4
        packet[IP6_HOP_LIMIT] = hops
        _put16(packet, IP6_PAYLOAD_LENGTH, len(packet) - IP6_LENGTH)


# the transport checksum: as if the address of the application's host were zero


def _transport_out(packet: bytearray, view: Packet, flags: int, change: int) -> None:
    at = _CHECKSUMS.get(view.protocol)
    if at is not None:
        if flags & Flag.PARTIAL:
            _put16(packet, view.l4 + at, 0)
        _check(packet, view, flags)
    _change(packet, view, flags, change)


def _transport_in(packet: bytearray, view: Packet, flags: int, near: bytes) -> None:
    at = _CHECKSUMS.get(view.protocol)
    if at is None and flags & Flag.PARTIAL:
        raise BadFrame("neither TCP nor UDP, but partial")
    if at is not None:
        _check(packet, view, flags)
        if flags & Flag.PARTIAL:
            ends = {"source": view.source(), "target": view.target()}
            value = checksum_of(packet, view.l4, view.l4_length, **ends, protocol=view.protocol)
            _put16(packet, view.l4 + at, value or (0xFFFF if view.protocol == Ip.UDP else 0))  # RFC 768
            return
    _change(packet, view, flags, delta(bytes(len(near)), near))


def _check(packet: bytearray, view: Packet, flags: int) -> None:
    v6 = Flag.V6 if view.version == 6 else Flag(0)
    check_body(Protocol(view.protocol), flags & Flag.PARTIAL | v6, packet[view.l4 :])


def _change(packet: bytearray, view: Packet, flags: int, change: int) -> None:
    """Other protocols have no checksum over addresses, or are none of ours."""
    if flags & Flag.PARTIAL:
        return
    if view.protocol == Ip.TCP:
        adjust(packet, view.l4 + CHECKSUM_AT_TCP, change)
    elif view.protocol == Ip.UDP:
        adjust_udp(packet, view.l4 + CHECKSUM_AT_UDP, change)
    elif view.protocol == Ip.ICMPV6 and view.version == 6:
        adjust(packet, view.l4 + ICMP_CHECKSUM, change)


# ICMP errors: the quoted packet went the other way


def _blank_quote(packet: bytearray, l4: int, size: int, back: bool, near: bytes) -> None:
    message = packet[l4:]
    at, _ = icmp.quoted_addresses(message, size)
    if not back:
        at += size
    if message[at : at + size] != near:
        raise BadFrame("an ICMP error about a packet that is not its receiver's")
    message[at : at + size] = bytes(size)
    icmp.blank_checksums(message, size)
    packet[l4:] = message


def _fill_quote(packet: bytearray, l4: int, size: int, back: bool, near: bytes) -> None:
    message = packet[l4:]
    at, _ = icmp.quoted_addresses(message, size)
    if not back:
        at += size
    blank = message[:]
    blank[at : at + size] = bytes(size)
    icmp.blank_checksums(blank, size)
    if blank != message:
        raise BadFrame("an ICMP error whose quote tells addresses or checksums")
    message[at : at + size] = near
    pseudo = 0
    if size == 4:
        quoted = (message[ICMP_LENGTH] & 0x0F) * 4
        _put16(message, ICMP_LENGTH + IP4_CHECKSUM, finish(sum16(message, ICMP_LENGTH, quoted, 0)))
    else:
        source, target = packet[IP6_SOURCE:IP6_TARGET], packet[IP6_TARGET:IP6_LENGTH]
        pseudo = pseudo_sum(bytes(source), bytes(target), Ip.ICMPV6.value, len(message))
    _put16(message, ICMP_CHECKSUM, finish(sum16(message, 0, len(message), pseudo)))
    packet[l4:] = message


def _put16(buffer: bytearray, at: int, value: int) -> None:
    buffer[at : at + 2] = value.to_bytes(2, "big")
