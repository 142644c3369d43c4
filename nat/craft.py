"""Packets of our own making: resets, ICMP errors, echo replies, and the headers of UDP replies.

Every maker returns a whole IPv4 or IPv6 packet as bytes, without a virtio_net_hdr, its checksums right; the
length of the addresses (4 or 16 bytes) chooses the version. `b""` means that nothing may be sent.

IPv4 packets carry DF and identification 0: they are atomic and need no unique one (RFC 6864 §4.1).
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

import cython

from nat.checksum import finish, fold, pseudo_sum, sum16, transport_checksum
from nat.header import (
    ICMP_REST,
    IP4_CHECKSUM,
    IP4_DONT_FRAGMENT,
    IP4_IDENTIFICATION,
    IP4_LENGTH,
    IP4_TOTAL_LENGTH,
    IP6_FRAGMENT_LENGTH,
    IP6_LENGTH,
    IP6_NEXT_HEADER,
    IP6_PAYLOAD_LENGTH,
    TCP_ACK,
    TCP_FIN,
    TCP_LENGTH,
    TCP_RST,
    TCP_SYN,
    UDP_CHECKSUM,
    UDP_DATAGRAM_LENGTH,
    UDP_LENGTH,
    Icmp4,
    Icmp6,
    Protocol,
)
from nat.packet import Packet

if cython.compiled:
    from cython.cimports.libc.string import memcpy

HOP_LIMIT = 64  # of what we make
ICMP4_MOST = 576  # bytes of an ICMP error with its quote: RFC 1812 §4.3.2.3
ICMP6_MOST = 1280  # the same: RFC 4443 §2.4 (c)

__all__ = [
    "UdpTemplate",
    "Unreachable",
    "code_of",
    "echo",
    "echo_reply",
    "fragments6",
    "icmp_error",
    "ip_packet",
    "tcp_probe",
    "tcp_reset",
    "tcp_reset_to",
    "udp_packet",
    "unreachable",
    "write_udp",
]

_IP4 = Struct("!BBHHHBBH4s4s")
_IP6 = Struct("!IHBB16s16s")
_FRAGMENT = Struct("!BxHI")
_TCP = Struct("!HHIIBBHHH")
_UDP = Struct("!HHHH")
_ICMP = Struct("!BBHI")


class Unreachable(IntEnum):
    """Why a packet can't be delivered, in either version's words."""

    NET = 0
    HOST = 1
    PORT = 2
    PROHIBITED = 3
    FRAGMENTATION_NEEDED = 4


# (type, code): RFC 792 and RFC 1812 §5.2.7.1; RFC 4443 §3.1, §3.2
_UNREACHABLE4 = {
    Unreachable.NET: (Icmp4.UNREACHABLE, 0),
    Unreachable.HOST: (Icmp4.UNREACHABLE, 1),
    Unreachable.PORT: (Icmp4.UNREACHABLE, 3),
    Unreachable.PROHIBITED: (Icmp4.UNREACHABLE, 13),
    Unreachable.FRAGMENTATION_NEEDED: (Icmp4.UNREACHABLE, 4),
}
_UNREACHABLE6 = {
    Unreachable.NET: (Icmp6.UNREACHABLE, 0),
    Unreachable.HOST: (Icmp6.UNREACHABLE, 3),
    Unreachable.PORT: (Icmp6.UNREACHABLE, 4),
    Unreachable.PROHIBITED: (Icmp6.UNREACHABLE, 1),
    Unreachable.FRAGMENTATION_NEEDED: (Icmp6.TOO_BIG, 0),
}
_ICMP4_ERRORS = frozenset(
    (Icmp4.UNREACHABLE, Icmp4.SOURCE_QUENCH, Icmp4.REDIRECT, Icmp4.TIME_EXCEEDED, Icmp4.PARAMETER)
)


def ip_packet(
    source: bytes, target: bytes, protocol: int, payload: bytes, hop_limit: int = HOP_LIMIT
) -> bytes:
    """`payload` behind an IP header. Raises ValueError when it is too long, or the addresses don't match."""
    _check_addresses(source, target)
    if len(source) == 4:
        total = IP4_LENGTH + len(payload)
        if total > 0xFFFF:
            raise ValueError("too long for an IPv4 packet")
        fields = (0x45, 0, total, 0, IP4_DONT_FRAGMENT, hop_limit, protocol)
        head = _IP4.pack(*fields, 0, source, target)
        return _IP4.pack(*fields, finish(sum16(head, 0, IP4_LENGTH, 0)), source, target) + payload
    if len(payload) > 0xFFFF:
        raise ValueError("too long for an IPv6 packet")
    return _IP6.pack(0x60000000, len(payload), protocol, hop_limit, source, target) + payload


def fragments6(packet: bytes, mtu: int, identification: int) -> list[bytes]:
    """An IPv6 packet without extension headers, cut into fragments of at most `mtu` bytes (RFC 8200 §4.5)."""
    step = (mtu - IP6_LENGTH - IP6_FRAGMENT_LENGTH) & ~7
    head, body = packet[:IP6_LENGTH], packet[IP6_LENGTH:]
    found = []
    for at in range(0, len(body), step):
        piece = body[at : at + step]
        more = at + step < len(body)
        fields = bytearray(head)
        _put16(fields, IP6_PAYLOAD_LENGTH, IP6_FRAGMENT_LENGTH + len(piece))
        fields[IP6_NEXT_HEADER] = Protocol.FRAGMENT.value
        found.append(bytes(fields) + _FRAGMENT.pack(head[IP6_NEXT_HEADER], at | more, identification) + piece)
    return found


def _check_addresses(source: bytes, target: bytes) -> None:
    if len(source) != len(target) or len(source) not in {4, 16}:
        raise ValueError("addresses have 4 or 16 bytes, both the same")


# TCP


def tcp_reset(packet: Packet) -> bytes:
    """The reset that answers a segment for which there is no connection (RFC 9293 §3.5.2, group 1).

    Never about a reset, a later fragment, or addresses that name no single host.
    """
    flags = packet.tcp_flags
    if packet.protocol != Protocol.TCP or not packet.has_transport or flags & TCP_RST:
        return b""
    source, target = packet.source(), packet.target()
    if not _is_host(source) or _is_many(target):
        return b""
    seq: int = 0
    ack: int | None = None
    if flags & TCP_ACK:
        seq = packet.tcp_ack
    else:
        ack = packet.tcp_seq + packet.payload_length + bool(flags & TCP_SYN) + bool(flags & TCP_FIN)
    return tcp_reset_to(target, packet.target_port, source, packet.source_port, seq=seq, ack=ack)


def tcp_reset_to(
    source: bytes, source_port: int, target: bytes, target_port: int, *, seq: int, ack: int | None = None
) -> bytes:
    """A reset from `source` to `target`; with ACK when `ack` is given. Numbers are taken modulo 2**32."""
    flags = TCP_RST if ack is None else TCP_RST | TCP_ACK
    return _bare(source, source_port, target, target_port, flags, seq, ack or 0)


def tcp_probe(source: bytes, source_port: int, target: bytes, target_port: int) -> bytes:
    """A SYN for a connection that stands: who has it answers with an ACK of its true numbers (RFC 5961 §4.2)."""
    return _bare(source, source_port, target, target_port, TCP_SYN, 0, 0)


def _bare(
    source: bytes, source_port: int, target: bytes, target_port: int, flags: int, seq: int, ack: int
) -> bytes:
    """A segment of nothing but a header; its window is 0."""
    fields = (source_port, target_port, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, TCP_LENGTH << 2, flags, 0)
    segment = _TCP.pack(*fields, 0, 0)
    checksum = transport_checksum(
        segment, 0, TCP_LENGTH, source=source, target=target, protocol=Protocol.TCP.value
    )
    return ip_packet(source, target, Protocol.TCP.value, _TCP.pack(*fields, checksum, 0))


# ICMP


def _is_many(address: bytes) -> bool:
    """Multicast, or IPv4's limited broadcast."""
    if len(address) == 4:
        return 224 <= address[0] < 240 or address == b"\xff\xff\xff\xff"
    return address[0] == 0xFF


def _is_host(address: bytes) -> bool:
    """Whether an error may go there: RFC 1122 §3.2.2, RFC 4443 §2.4 (e.6)."""
    if len(address) == 4:
        return address[0] not in {0, 127} and address[0] < 224
    return address[0] != 0xFF and address not in {bytes(16), bytes(15) + b"\x01"}


def _is_icmp_error(packet: Packet) -> bool:
    """Also ICMP that can't be read, which may be one."""
    if packet.protocol != (Protocol.ICMP if packet.version == 4 else Protocol.ICMPV6):
        return False
    if not packet.has_transport:
        return True
    if packet.version == 4:
        return packet.icmp_type in _ICMP4_ERRORS
    return packet.icmp_type < Icmp6.ECHO or packet.icmp_type == Icmp6.REDIRECT


def unreachable(packet: Packet, code: Unreachable, from_address: bytes | None = None, mtu: int = 0) -> bytes:
    """The ICMP error about `packet`, quoting it, from its target or from `from_address`.

    `packet` is as the application sent it, before any rewrite. `mtu`, in bytes, goes with
    FRAGMENTATION_NEEDED, which is Packet Too Big in IPv6. Never about an ICMP error, a later fragment, or
    addresses that name no single host (RFC 1122 §3.2.2, RFC 4443 §2.4 (e)).
    """
    source, target = packet.source(), packet.target()
    too_big = code == Unreachable.FRAGMENTATION_NEEDED
    if packet.fragment_offset or not _is_host(source) or _is_icmp_error(packet):
        return b""
    if _is_many(target) and not (too_big and packet.version == 6 and from_address):
        return b""
    kind, number = (_UNREACHABLE4 if packet.version == 4 else _UNREACHABLE6)[code]
    return icmp_error(
        kind.value, number, mtu if too_big else 0, from_address or target, source, quoted=packet.whole()
    )


def code_of(code: Unreachable, size: int) -> tuple[int, int]:
    """ICMP type and code between addresses of `size` bytes."""
    kind, number = (_UNREACHABLE4 if size == 4 else _UNREACHABLE6)[code]
    return kind.value, number


def icmp_error(kind: int, code: int, rest: int, source: bytes, target: bytes, *, quoted: bytes) -> bytes:
    """An ICMP error from `source` to `target` about the packet `quoted`, of which it takes as much as it may.

    `rest` is the header's second word: an MTU, a pointer, or 0.
    """
    most = ICMP4_MOST - IP4_LENGTH - 8 if len(source) == 4 else ICMP6_MOST - IP6_LENGTH - 8
    return _icmp(kind, code, rest, source, target, data=quoted[:most])


def _icmp(kind: int, code: int, rest: int, source: bytes, target: bytes, *, data: bytes) -> bytes:
    message = _ICMP.pack(kind, code, 0, rest) + data
    protocol = Protocol.ICMP.value
    pseudo = 0  # ICMP's checksum has no pseudo-header, ICMPv6's has (RFC 4443 §2.3)
    if len(source) == 16:
        protocol = Protocol.ICMPV6.value
        pseudo = pseudo_sum(source, target, protocol, len(message))
    checksum = finish(sum16(message, 0, len(message), pseudo))
    return ip_packet(source, target, protocol, _ICMP.pack(kind, code, checksum, rest) + data)


def echo(
    source: bytes, target: bytes, identifier: int, sequence: int, payload: bytes, *, reply: bool = True
) -> bytes:
    """An echo reply, or with `reply=False` a request, from `source` to `target` (RFC 792, RFC 4443 §4)."""
    if len(source) == 4:
        kind = Icmp4.ECHO_REPLY.value if reply else Icmp4.ECHO.value
    else:
        kind = Icmp6.ECHO_REPLY.value if reply else Icmp6.ECHO.value
    return _icmp(kind, 0, identifier << 16 | sequence, source, target, data=payload)


def echo_reply(packet: Packet) -> bytes:
    """The reply to a whole echo request; b"" for any other packet."""
    wanted = (Protocol.ICMP, Icmp4.ECHO, 0) if packet.version == 4 else (Protocol.ICMPV6, Icmp6.ECHO, 0)
    if not packet.has_transport or packet.fragment:
        return b""
    if (packet.protocol, packet.icmp_type, packet.icmp_code) != wanted:
        return b""
    source, target = packet.source(), packet.target()
    if not _is_host(source) or _is_many(target):
        return b""
    word = packet.buffer[packet.l4 + ICMP_REST : packet.payload_at]  # identifier and sequence number
    identifier, sequence = int.from_bytes(word[:2], "big"), int.from_bytes(word[2:], "big")
    return echo(target, source, identifier, sequence, packet.payload())


# UDP

# The same offsets as C integers, when compiled.
_TOTAL_AT = cython.declare(cython.int, IP4_TOTAL_LENGTH)
_IDENTIFICATION_AT = cython.declare(cython.int, IP4_IDENTIFICATION)
_CHECKSUM_AT = cython.declare(cython.int, IP4_CHECKSUM)
_PAYLOAD_LENGTH_AT = cython.declare(cython.int, IP6_PAYLOAD_LENGTH)
_UDP_LENGTH_AT = cython.declare(cython.int, UDP_DATAGRAM_LENGTH)
_UDP_CHECKSUM_AT = cython.declare(cython.int, UDP_CHECKSUM)
_IP4_SIZE = cython.declare(cython.int, IP4_LENGTH)
_UDP_SIZE = cython.declare(cython.int, UDP_LENGTH)


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
@cython.boundscheck(False)
@cython.wraparound(False)
def _put16(view: cython.uchar[::1], at: cython.Py_ssize_t, value: cython.uint) -> cython.void:
    view[at] = value >> 8
    view[at + 1] = value & 0xFF


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _fold(total: cython.uint) -> cython.uint:
    # checksum.fold, without a call into another compiled module.
    total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16)


@cython.cclass
class UdpTemplate:
    """The IP and UDP headers of one flow's replies, ready but for lengths and checksums.

    Raises ValueError when the addresses are not both of 4 or both of 16 bytes, or a port is not one.
    """

    header_length = cython.declare(cython.Py_ssize_t, visibility="readonly")  # 28 or 48 bytes
    template: bytes
    ip_sum: cython.uint  # of the IPv4 header, with zeros for what is not known yet
    pseudo: cython.uint  # of the pseudo-header, without the length
    ports: cython.uint

    def __init__(self, source: bytes, source_port: int, target: bytes, target_port: int) -> None:
        _check_addresses(source, target)
        if not (0 <= source_port <= 0xFFFF and 0 <= target_port <= 0xFFFF):
            raise ValueError("a port has 16 bits")
        ports = _UDP.pack(source_port, target_port, 0, 0)
        protocol = Protocol.UDP.value
        if len(source) == 4:
            head = _IP4.pack(0x45, 0, 0, 0, IP4_DONT_FRAGMENT, HOP_LIMIT, protocol, 0, source, target)
        else:
            head = _IP6.pack(0x60000000, 0, protocol, HOP_LIMIT, source, target)
        self.template = head + ports
        self.header_length = len(self.template)
        self.ip_sum = fold(sum16(head, 0, len(head), 0))
        self.pseudo = fold(pseudo_sum(source, target, protocol, 0))
        self.ports = fold(source_port + target_port)

    @cython.ccall
    def write(
        self,
        buffer: bytearray | memoryview,
        at: cython.Py_ssize_t,
        payload_length: cython.Py_ssize_t,
        partial: cython.bint = False,
        identification: cython.uint = 0,
    ) -> cython.Py_ssize_t:
        """Write the headers at `at`, in front of `payload_length` bytes already there. Returns their length.

        `partial`: for a packet under NEEDS_CSUM, the checksum field gets the pseudo-header's sum and the
        payload is not read. Raises ValueError when the payload is too long, IndexError when the buffer is
        too short.
        """
        view: cython.uchar[::1] = buffer
        size: cython.Py_ssize_t = self.header_length
        v4: cython.bint = size == _IP4_SIZE + _UDP_SIZE
        length: cython.uint = payload_length + _UDP_SIZE
        udp: cython.Py_ssize_t = at + size - _UDP_SIZE
        total: cython.uint
        if payload_length < 0 or payload_length > 0xFFFF - (size if v4 else _UDP_SIZE):
            raise ValueError("too long for a datagram")
        if at < 0 or at > len(view) - size - payload_length:
            raise IndexError("the datagram is outside the buffer")
        if cython.compiled:
            memcpy(cython.address(view[at]), cython.cast(cython.p_char, self.template), size)
        else:
            view[at : at + size] = self.template
        if v4:
            identification &= 0xFFFF
            total = self.ip_sum + length + _IP4_SIZE + identification
            _put16(view, at + _TOTAL_AT, length + _IP4_SIZE)
            _put16(view, at + _IDENTIFICATION_AT, identification)
            _put16(view, at + _CHECKSUM_AT, 0xFFFF - _fold(total))
        else:
            _put16(view, at + _PAYLOAD_LENGTH_AT, length)
        _put16(view, udp + _UDP_LENGTH_AT, length)
        total = _fold(self.pseudo + length)
        if not partial:
            total += self.ports + length
            total = 0xFFFF - fold(sum16(buffer, udp + _UDP_SIZE, payload_length, total))
            if total == 0:
                total = 0xFFFF  # 0 would say "no checksum" (RFC 768)
        _put16(view, udp + _UDP_CHECKSUM_AT, total)
        return size


def write_udp(
    buffer: bytearray | memoryview,
    at: int,
    payload_length: int,
    *,
    source: bytes,
    source_port: int,
    target: bytes,
    target_port: int,
    partial: bool = False,
) -> int:
    """Write IP and UDP headers once, as `UdpTemplate.write` does for many."""
    return UdpTemplate(source, source_port, target, target_port).write(buffer, at, payload_length, partial)


def udp_packet(source: bytes, source_port: int, target: bytes, target_port: int, payload: bytes) -> bytes:
    """A whole UDP packet."""
    template = UdpTemplate(source, source_port, target, target_port)
    packet = bytearray(template.header_length) + payload
    template.write(packet, 0, len(payload), False)
    return bytes(packet)
