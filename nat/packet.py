"""The slow path's parser: one reusable `Packet` that looks into a buffer and copies nothing.

The engine's fast path looks at fixed offsets only. Whatever is not found there - a first packet, a fragment,
options, extension headers, garbage - is parsed here, in the order in which the headers come:

    parse -> _parse_v4 / _parse_v6 -> (extension headers) -> _upper (ports, flags, lengths)

`parse` never raises, whatever the bytes: it returns a `Problem`; the fields are good only when that is OK.
"""

from __future__ import annotations

from enum import IntEnum

import cython

from nat import header
from nat.checksum import finish, pseudo_sum, sum16

MAX_EXTENSIONS = 8  # IPv6 extension headers; ours, RFC 8200 sets no bound

__all__ = ["MAX_EXTENSIONS", "Packet", "Problem"]

# The same numbers as C integers, when compiled.
IP4_LENGTH = cython.declare(cython.int, header.IP4_LENGTH)
IP4_TOTAL_LENGTH = cython.declare(cython.int, header.IP4_TOTAL_LENGTH)
IP4_IDENTIFICATION = cython.declare(cython.int, header.IP4_IDENTIFICATION)
IP4_FRAGMENT = cython.declare(cython.int, header.IP4_FRAGMENT)
IP4_TTL = cython.declare(cython.int, header.IP4_TTL)
IP4_PROTOCOL = cython.declare(cython.int, header.IP4_PROTOCOL)
IP4_SOURCE = cython.declare(cython.int, header.IP4_SOURCE)
IP4_TARGET = cython.declare(cython.int, header.IP4_TARGET)
IP4_DONT_FRAGMENT = cython.declare(cython.int, header.IP4_DONT_FRAGMENT)
IP4_MORE_FRAGMENTS = cython.declare(cython.int, header.IP4_MORE_FRAGMENTS)
IP4_OFFSET_MASK = cython.declare(cython.int, header.IP4_OFFSET_MASK)
IP4_OPTION_END = cython.declare(cython.int, header.IP4_OPTION_END)
IP4_OPTION_NOP = cython.declare(cython.int, header.IP4_OPTION_NOP)
IP4_OPTION_LSRR = cython.declare(cython.int, header.IP4_OPTION_LSRR)
IP4_OPTION_SSRR = cython.declare(cython.int, header.IP4_OPTION_SSRR)
IP6_LENGTH = cython.declare(cython.int, header.IP6_LENGTH)
IP6_PAYLOAD_LENGTH = cython.declare(cython.int, header.IP6_PAYLOAD_LENGTH)
IP6_NEXT_HEADER = cython.declare(cython.int, header.IP6_NEXT_HEADER)
IP6_HOP_LIMIT = cython.declare(cython.int, header.IP6_HOP_LIMIT)
IP6_SOURCE = cython.declare(cython.int, header.IP6_SOURCE)
IP6_TARGET = cython.declare(cython.int, header.IP6_TARGET)
IP6_FRAGMENT_LENGTH = cython.declare(cython.int, header.IP6_FRAGMENT_LENGTH)
IP6_OPTION_JUMBO = cython.declare(cython.int, header.IP6_OPTION_JUMBO)
TCP_LENGTH = cython.declare(cython.int, header.TCP_LENGTH)
TCP_SEQUENCE = cython.declare(cython.int, header.TCP_SEQUENCE)
TCP_ACKNOWLEDGEMENT = cython.declare(cython.int, header.TCP_ACKNOWLEDGEMENT)
TCP_DATA_OFFSET = cython.declare(cython.int, header.TCP_DATA_OFFSET)
TCP_FLAGS = cython.declare(cython.int, header.TCP_FLAGS)
SOURCE_PORT = cython.declare(cython.int, header.SOURCE_PORT)
TARGET_PORT = cython.declare(cython.int, header.TARGET_PORT)
UDP_LENGTH = cython.declare(cython.int, header.UDP_LENGTH)
UDP_DATAGRAM_LENGTH = cython.declare(cython.int, header.UDP_DATAGRAM_LENGTH)
ICMP_LENGTH = cython.declare(cython.int, header.ICMP_LENGTH)
ICMP_TYPE = cython.declare(cython.int, header.ICMP_TYPE)
ICMP_CODE = cython.declare(cython.int, header.ICMP_CODE)
ICMP_REST = cython.declare(cython.int, header.ICMP_REST)
HOP_BY_HOP = cython.declare(cython.int, header.Protocol.HOP_BY_HOP.value)
ROUTING = cython.declare(cython.int, header.Protocol.ROUTING.value)
FRAGMENT = cython.declare(cython.int, header.Protocol.FRAGMENT.value)
AH = cython.declare(cython.int, header.Protocol.AH.value)
DESTINATION = cython.declare(cython.int, header.Protocol.DESTINATION.value)
TCP = cython.declare(cython.int, header.Protocol.TCP.value)
UDP = cython.declare(cython.int, header.Protocol.UDP.value)
ICMP = cython.declare(cython.int, header.Protocol.ICMP.value)
ICMPV6 = cython.declare(cython.int, header.Protocol.ICMPV6.value)
ECHO_4 = cython.declare(cython.int, header.Icmp4.ECHO.value)
ECHO_REPLY_4 = cython.declare(cython.int, header.Icmp4.ECHO_REPLY.value)
ECHO_6 = cython.declare(cython.int, header.Icmp6.ECHO.value)
ECHO_REPLY_6 = cython.declare(cython.int, header.Icmp6.ECHO_REPLY.value)
MOST_EXTENSIONS = cython.declare(cython.int, MAX_EXTENSIONS)


class Problem(IntEnum):
    """Why a packet is not taken. All but OK mean: drop it, and count it."""

    OK = 0
    TRUNCATED = 1  # fewer bytes than a length field or a header needs
    BAD_VERSION = 2  # neither IPv4 nor IPv6
    BAD_HEADER = 3  # a header that contradicts itself
    BAD_LENGTH = 4  # a length field that can't be true; IPv6 jumbograms
    BAD_CHECKSUM = 5  # of the IPv4 header
    TOO_MANY_HEADERS = 6  # more than MAX_EXTENSIONS
    SOURCE_ROUTED = 7  # source routes: RFC 7126 §4.3, RFC 5095, and any whose target field is not the last


OK = cython.declare(cython.int, 0)
TRUNCATED = cython.declare(cython.int, 1)
BAD_VERSION = cython.declare(cython.int, 2)
BAD_HEADER = cython.declare(cython.int, 3)
BAD_LENGTH = cython.declare(cython.int, 4)
BAD_CHECKSUM = cython.declare(cython.int, 5)
TOO_MANY_HEADERS = cython.declare(cython.int, 6)
SOURCE_ROUTED = cython.declare(cython.int, 7)


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
@cython.boundscheck(False)
@cython.wraparound(False)
def _read16(view: cython.uchar[::1], at: cython.Py_ssize_t) -> cython.int:
    return (view[at] << 8) | view[at + 1]


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
@cython.boundscheck(False)
@cython.wraparound(False)
def _read32(view: cython.uchar[::1], at: cython.Py_ssize_t) -> cython.uint:
    high: cython.uint = (view[at] << 8) | view[at + 1]
    return (high << 16) | (view[at + 2] << 8) | view[at + 3]


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _header_sum_ok(view: cython.uchar[::1], at: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.bint:
    # As checksum.sum16 would, but for so few bytes a call into another compiled module costs more.
    total: cython.uint = 0
    while at < end:
        total += _read16(view, at)
        at += 2
    return (total & 0xFFFF) + (total >> 16) == 0xFFFF


@cython.cclass
class Packet:
    """A view of one IP packet in `buffer`, filled anew by each `parse`.

    Offsets count from the buffer's start. The buffer is never resized while a Packet holds it.
    """

    buffer = cython.declare(bytearray, visibility="readonly")
    start = cython.declare(cython.Py_ssize_t, visibility="readonly")
    length = cython.declare(cython.Py_ssize_t, visibility="readonly")  # of the IP packet, bytes
    version = cython.declare(cython.int, visibility="readonly")  # 4 or 6
    protocol = cython.declare(cython.int, visibility="readonly")  # after any extension headers
    hop_limit = cython.declare(cython.int, visibility="readonly")
    src_at = cython.declare(cython.Py_ssize_t, visibility="readonly")
    dst_at = cython.declare(cython.Py_ssize_t, visibility="readonly")
    address_length = cython.declare(cython.Py_ssize_t, visibility="readonly")  # 4 or 16
    l4 = cython.declare(cython.Py_ssize_t, visibility="readonly")  # where the transport header starts
    l4_length = cython.declare(cython.Py_ssize_t, visibility="readonly")  # it and all behind it

    fragment = cython.declare(cython.bint, visibility="readonly")  # a piece, or an atomic fragment (RFC 6946)
    fragment_offset = cython.declare(cython.int, visibility="readonly")  # bytes
    more_fragments = cython.declare(cython.bint, visibility="readonly")
    dont_fragment = cython.declare(cython.bint, visibility="readonly")  # IPv4's DF; true for IPv6
    identification = cython.declare(cython.uint, visibility="readonly")
    fragment_at = cython.declare(cython.Py_ssize_t, visibility="readonly")  # IPv6 fragment header, or 0
    next_header_at = cython.declare(
        cython.Py_ssize_t, visibility="readonly"
    )  # the byte that announces it, or 0

    # Of the transport header. All zero for other protocols, later fragments, and IPv4 first fragments
    # too short to hold it.
    has_transport = cython.declare(cython.bint, visibility="readonly")
    source_port = cython.declare(cython.int, visibility="readonly")  # ICMP echo: the identifier
    target_port = cython.declare(cython.int, visibility="readonly")  # ICMP echo: the identifier
    tcp_flags = cython.declare(cython.int, visibility="readonly")
    tcp_seq = cython.declare(cython.uint, visibility="readonly")
    tcp_ack = cython.declare(cython.uint, visibility="readonly")
    icmp_type = cython.declare(cython.int, visibility="readonly")
    icmp_code = cython.declare(cython.int, visibility="readonly")
    payload_at = cython.declare(cython.Py_ssize_t, visibility="readonly")  # behind the transport header
    payload_length = cython.declare(cython.Py_ssize_t, visibility="readonly")

    view: cython.uchar[::1]
    gso: cython.bint
    quoted: cython.bint

    def __init__(self, buffer: bytearray) -> None:
        self.buffer = buffer
        self.view = buffer
        self._clear()

    @cython.cfunc
    def _clear(self) -> cython.void:
        self.start = self.length = self.src_at = self.dst_at = self.address_length = self.l4 = (
            self.l4_length
        ) = 0
        self.version = self.protocol = self.hop_limit = 0
        self.fragment = self.more_fragments = self.dont_fragment = False
        self.fragment_offset = 0
        self.identification = 0
        self.fragment_at = self.next_header_at = 0
        self._clear_transport()

    @cython.cfunc
    def _clear_transport(self) -> cython.void:
        self.has_transport = False
        self.source_port = self.target_port = self.tcp_flags = self.icmp_type = self.icmp_code = 0
        self.tcp_seq = self.tcp_ack = 0
        self.payload_at = self.payload_length = 0

    @cython.ccall
    def parse(
        self,
        start: cython.Py_ssize_t,
        length: cython.Py_ssize_t,
        gso: cython.bint = False,
        quoted: cython.bint = False,
        verify: cython.bint = True,
    ) -> cython.int:
        """Look at the packet in `length` bytes from `start` on, and fill the fields. Returns a `Problem`.

        Bytes behind the packet's own length are ignored. `gso`: an IP length of 0 means `length` (a
        super-packet too long for the field). `quoted`: the head of a packet out of an ICMP error; it may be
        cut behind eight bytes of transport header, and its checksum is not looked at. `verify=False` skips
        the checksum too.
        """
        self._clear()
        if start < 0 or length < 1 or length > len(self.buffer) - start:
            return TRUNCATED
        self.start = start
        self.length = length
        self.gso = gso
        self.quoted = quoted
        version: cython.int = self.view[start] >> 4
        if version == 4:
            return self._parse_v4(verify and not quoted)
        if version == 6:
            return self._parse_v6()
        return BAD_VERSION

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _parse_v4(self, verify: cython.bint) -> cython.int:
        view: cython.uchar[::1] = self.view
        start: cython.Py_ssize_t = self.start
        if self.length < IP4_LENGTH:
            return TRUNCATED
        head: cython.int = (view[start] & 0x0F) * 4
        if head < IP4_LENGTH:
            return BAD_HEADER
        total: cython.Py_ssize_t = _read16(view, start + IP4_TOTAL_LENGTH)
        if total == 0 and self.gso:
            total = self.length
        if total < head:
            return BAD_LENGTH
        if total > self.length:
            if not self.quoted or head > self.length:
                return TRUNCATED
            total = self.length
        self.length = total
        if verify and not _header_sum_ok(view, start, start + head):
            return BAD_CHECKSUM
        if head > IP4_LENGTH:
            problem: cython.int = self._options_v4(start + IP4_LENGTH, start + head)
            if problem != OK:
                return problem
        self.version = 4
        self.address_length = 4
        self.src_at = start + IP4_SOURCE
        self.dst_at = start + IP4_TARGET
        self.hop_limit = view[start + IP4_TTL]
        self.protocol = view[start + IP4_PROTOCOL]
        self.identification = _read16(view, start + IP4_IDENTIFICATION)
        piece: cython.int = _read16(view, start + IP4_FRAGMENT)
        self.dont_fragment = (piece & IP4_DONT_FRAGMENT) != 0
        self.more_fragments = (piece & IP4_MORE_FRAGMENTS) != 0
        self.fragment_offset = (piece & IP4_OFFSET_MASK) * 8
        self.fragment = self.more_fragments or self.fragment_offset != 0
        self.l4 = start + head
        self.l4_length = total - head
        return self._upper()

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _options_v4(self, at: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.int:
        view: cython.uchar[::1] = self.view
        while at < end:
            kind: cython.int = view[at]
            if kind == IP4_OPTION_END:
                return OK
            if kind == IP4_OPTION_NOP:
                at += 1
                continue
            if kind in {IP4_OPTION_LSRR, IP4_OPTION_SSRR}:
                return SOURCE_ROUTED
            if at + 2 > end or view[at + 1] < 2 or view[at + 1] > end - at:
                return BAD_HEADER
            at += view[at + 1]
        return OK

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _parse_v6(self) -> cython.int:
        view: cython.uchar[::1] = self.view
        start: cython.Py_ssize_t = self.start
        if self.length < IP6_LENGTH:
            return TRUNCATED
        total: cython.Py_ssize_t = IP6_LENGTH + _read16(view, start + IP6_PAYLOAD_LENGTH)
        if total == IP6_LENGTH and self.gso:
            total = self.length
        if total > self.length:
            if not self.quoted:
                return TRUNCATED
            total = self.length
        self.length = total
        self.version = 6
        self.address_length = 16
        self.src_at = start + IP6_SOURCE
        self.dst_at = start + IP6_TARGET
        self.hop_limit = view[start + IP6_HOP_LIMIT]
        self.dont_fragment = True
        return self._extensions_v6()

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _extensions_v6(self) -> cython.int:
        """Walk the chain up to the upper-layer header, or to the payload of a later fragment."""
        view: cython.uchar[::1] = self.view
        end: cython.Py_ssize_t = self.start + self.length
        announced: cython.Py_ssize_t = (
            self.start + IP6_NEXT_HEADER
        )  # where the type of the next header stands
        at: cython.Py_ssize_t = self.start + IP6_LENGTH
        seen: cython.int = 0
        while True:
            kind: cython.int = view[announced]
            if kind not in {HOP_BY_HOP, ROUTING, FRAGMENT, AH, DESTINATION}:
                break
            seen += 1
            if seen > MOST_EXTENSIONS:
                return TOO_MANY_HEADERS
            if at + 8 > end:
                return TRUNCATED
            size: cython.Py_ssize_t = (view[at + 1] + 1) * 8
            if kind == FRAGMENT:
                if self.fragment:
                    return BAD_HEADER
                size = IP6_FRAGMENT_LENGTH
                self.fragment = True
                self.fragment_at = at
                self.next_header_at = announced
                self.fragment_offset = _read16(view, at + 2) & 0xFFF8
                self.more_fragments = (view[at + 3] & 1) != 0
                self.identification = _read32(view, at + 4)
            elif kind == AH:
                size = (view[at + 1] + 2) * 4  # RFC 4302 §2.2 counts in words of 4 bytes
                if size < 12:
                    return BAD_HEADER
            elif kind == ROUTING:
                if view[at + 2] == 0 or view[at + 3] != 0:
                    return SOURCE_ROUTED
            elif kind == HOP_BY_HOP and seen > 1:
                return BAD_HEADER  # RFC 8200 §4.1: directly behind the IPv6 header, or nowhere
            if size > end - at:
                return TRUNCATED
            if kind == HOP_BY_HOP and self._jumbo(at + 2, at + size):
                return BAD_LENGTH
            announced = at
            at += size
            if self.fragment_offset != 0:
                kind = view[announced]
                break
        self.protocol = kind
        self.l4 = at
        self.l4_length = end - at
        return self._upper()

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _jumbo(self, at: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.bint:
        """Whether hop-by-hop options hold the jumbo payload option; malformed ones count as if they did."""
        view: cython.uchar[::1] = self.view
        while at < end:
            if view[at] == 0:  # Pad1
                at += 1
                continue
            if view[at] == IP6_OPTION_JUMBO or at + 2 > end or view[at + 1] + 2 > end - at:
                return True
            at += view[at + 1] + 2
        return False

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _upper(self) -> cython.int:
        """The transport header: ports, flags, and whether its own lengths can be true."""
        view: cython.uchar[::1] = self.view
        at: cython.Py_ssize_t = self.l4
        have: cython.Py_ssize_t = self.l4_length
        if self.fragment_offset != 0:
            return OK
        need: cython.int = 0
        if self.protocol == TCP:
            need = TCP_LENGTH
        elif self.protocol == UDP:
            need = UDP_LENGTH
        elif self.protocol == (ICMP if self.version == 4 else ICMPV6):
            need = ICMP_LENGTH
        if need == 0:
            return OK
        if self.quoted and have >= 8:
            need = 8  # RFC 792 promises no more of a quoted packet
        if have < need:
            # RFC 7112 demands the whole chain in an IPv6 packet's first fragment; IPv4 does not.
            return OK if self.more_fragments and self.version == 4 else TRUNCATED
        self.has_transport = True
        if self.protocol == TCP:
            return self._upper_tcp(at, have)
        if self.protocol == UDP:
            return self._upper_udp(at, have)
        self.icmp_type = view[at + ICMP_TYPE]
        self.icmp_code = view[at + ICMP_CODE]
        if self.version == 4:
            echo: cython.bint = self.icmp_type in {ECHO_4, ECHO_REPLY_4}
        else:
            echo = self.icmp_type in {ECHO_6, ECHO_REPLY_6}
        if echo:
            self.source_port = self.target_port = _read16(view, at + ICMP_REST)
        self.payload_at = at + ICMP_LENGTH
        self.payload_length = have - ICMP_LENGTH
        return OK

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _upper_tcp(self, at: cython.Py_ssize_t, have: cython.Py_ssize_t) -> cython.int:
        view: cython.uchar[::1] = self.view
        self.source_port = _read16(view, at + SOURCE_PORT)
        self.target_port = _read16(view, at + TARGET_PORT)
        self.tcp_seq = _read32(view, at + TCP_SEQUENCE)
        if have < TCP_LENGTH:  # quoted
            self.payload_at = at + have
            return OK
        self.tcp_ack = _read32(view, at + TCP_ACKNOWLEDGEMENT)
        self.tcp_flags = view[at + TCP_FLAGS]
        head: cython.int = (view[at + TCP_DATA_OFFSET] >> 4) * 4
        if head < TCP_LENGTH:
            return BAD_HEADER
        if head > have:
            if not (self.quoted or (self.more_fragments and self.version == 4)):
                return BAD_HEADER
            head = have
        self.payload_at = at + head
        self.payload_length = have - head
        return OK

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _upper_udp(self, at: cython.Py_ssize_t, have: cython.Py_ssize_t) -> cython.int:
        view: cython.uchar[::1] = self.view
        self.source_port = _read16(view, at + SOURCE_PORT)
        self.target_port = _read16(view, at + TARGET_PORT)
        size: cython.Py_ssize_t = _read16(view, at + UDP_DATAGRAM_LENGTH)
        if size == 0 and self.gso and have > 0xFFFF:
            size = have
        if size < UDP_LENGTH:
            return BAD_LENGTH
        if size > have:
            if not (self.quoted or self.more_fragments):
                return TRUNCATED
            size = have
        self.payload_at = at + UDP_LENGTH
        self.payload_length = size - UDP_LENGTH  # what lies behind it is no payload (RFC 9868 options)
        return OK

    def source(self) -> bytes:
        """The source address: 4 or 16 bytes."""
        return bytes(self.buffer[self.src_at : self.src_at + self.address_length])

    def target(self) -> bytes:
        """The target address: 4 or 16 bytes."""
        return bytes(self.buffer[self.dst_at : self.dst_at + self.address_length])

    def key(self) -> bytes:
        """What tells the flow: both addresses and both ports, 12 or 36 bytes."""
        size = 2 * self.address_length
        return bytes(self.buffer[self.src_at : self.src_at + size] + self.buffer[self.l4 : self.l4 + 4])

    def payload(self) -> bytes:
        """A copy of what lies behind the transport header, or behind the IP header when that is unknown."""
        if self.has_transport:
            return bytes(self.buffer[self.payload_at : self.payload_at + self.payload_length])
        return bytes(self.buffer[self.l4 : self.l4 + self.l4_length])

    def whole(self) -> bytes:
        """A copy of the packet, cut to its own length."""
        return bytes(self.buffer[self.start : self.start + self.length])

    def transport_sum_ok(self) -> bool:
        """Whether the checksum of a whole TCP, UDP or ICMP packet is right; true for other protocols.

        Not for packets under NEEDS_CSUM, whose checksum is not there yet.
        """
        if not self.has_transport or self.fragment or self.quoted:
            return True
        protocol: int = self.protocol
        length: int = self.l4_length
        if protocol == UDP:
            length = UDP_LENGTH + self.payload_length
            if _read16(self.view, self.l4 + 6) == 0:
                return self.version == 4  # RFC 8200 §8.1: IPv6 has no UDP without a checksum
        total: int = 0
        if protocol != ICMP:
            total = pseudo_sum(self.source(), self.target(), protocol, length)
        return finish(sum16(self.buffer, self.l4, length, total)) == 0
