"""Reassembly of IPv4 and IPv6 fragments (RFC 791 §3.2, RFC 8200 §4.5), with bounded memory and no clock.

Fragments are kept until their datagram is whole, overlaps itself, is too old, or has to make room. Of one
that overlapped, the key stays until its time is over.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from nat.checksum import finish, sum16
from nat.header import (
    IP4_CHECKSUM,
    IP4_FRAGMENT,
    IP4_TOTAL_LENGTH,
    IP6_FRAGMENT_LENGTH,
    IP6_LENGTH,
    IP6_PAYLOAD_LENGTH,
)
from nat.packet import Packet

LIMIT_BYTES = 1 << 20
LIMIT_DATAGRAMS = 256
LIMIT_FRAGMENTS = 64  # of one datagram
TIMEOUT_S = 30.0
OVERHEAD = 256  # bytes that a datagram costs us, beside its fragments

__all__ = ["Reassembler"]


class _Datagram:
    """The fragments of one datagram that are here."""

    __slots__ = ("buried", "cost", "deadline", "end", "head", "length", "offsets", "pieces")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.cost = OVERHEAD
        self.buried = False  # it broke a rule: only its key is kept
        self.offsets: list[int] = []  # sorted
        self.pieces: dict[int, bytes] = {}
        self.length = 0  # bytes of all pieces
        self.end = -1  # where the last fragment ends, once it is here
        self.head = b""  # all in front of the fragmentable part, once the first fragment is here

    def fits(self, offset: int, body: bytes, last: bool) -> bool:
        """Whether a fragment goes between those here; False for all that RFC 5722 §4 condemns."""
        end = offset + len(body)
        if self.end >= 0 and (end != self.end if last else end > self.end):
            return False
        if len(self.offsets) >= LIMIT_FRAGMENTS:
            return False
        place = bisect_left(self.offsets, offset)
        if place:
            before = self.offsets[place - 1]
            if before + len(self.pieces[before]) > offset:
                return False
        return place == len(self.offsets) or (not last and self.offsets[place] >= end)


class Reassembler:
    """Fragments in, whole packets out. The cost of a fragment does not grow with the number of datagrams."""

    def __init__(
        self,
        limit_bytes: int = LIMIT_BYTES,
        limit_datagrams: int = LIMIT_DATAGRAMS,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._limit_bytes = limit_bytes
        self._limit_datagrams = limit_datagrams
        self._timeout_s = timeout_s
        # Oldest first: every datagram lives equally long, so this is the order of the deadlines too.
        self._datagrams: dict[bytes, _Datagram] = {}
        self.held_bytes = 0  # overhead included
        self.dropped = 0  # datagrams given up, for whatever reason

    def __len__(self) -> int:
        return len(self._datagrams)

    @property
    def next_expiry(self) -> float | None:
        """When the oldest datagram's time is over, in the clock of `now`; None when nothing is held."""
        for datagram in self._datagrams.values():
            return datagram.deadline
        return None

    def expire(self, now: float) -> int:
        """Give up what is too old. Returns how many datagrams that were."""
        count = 0
        for datagram in self._datagrams.values():
            if datagram.deadline > now:
                break
            count += 1
        for _ in range(count):
            self._drop_oldest()
        return count

    def add(self, packet: Packet, now: float) -> bytes | None:
        """Take a parsed packet; returns the whole IP packet when this was the last piece that it needed.

        A packet that is no fragment, or is an atomic one (RFC 6946), comes back at once. The result has the
        first fragment's header without its fragment fields; it is to be parsed anew.
        """
        if not packet.fragment:
            return packet.whole()
        offset = packet.fragment_offset
        body = _body(packet)
        last = not packet.more_fragments
        if offset == 0 and last:
            return _rebuild(packet.version, _head(packet), body)
        if not body or offset + len(body) > 0xFFFF or (not last and len(body) % 8):
            return None
        self.expire(now)
        key = _key(packet)
        datagram = self._datagrams.get(key)
        if datagram is None:
            datagram = self._datagrams[key] = _Datagram(now + self._timeout_s)
            self.held_bytes += OVERHEAD
        elif datagram.buried:
            return None
        elif datagram.pieces.get(offset) == body and last == (offset + len(body) == datagram.end):
            return None  # the network's own copy, which RFC 5722 leaves to us
        whole = None
        if datagram.fits(offset, body, last):
            whole = self._insert(key, datagram, packet, body)
        else:
            self._bury(datagram)
        while len(self._datagrams) > self._limit_datagrams or self.held_bytes > self._limit_bytes:
            self._drop_oldest()
        return whole

    def _insert(self, key: bytes, datagram: _Datagram, packet: Packet, body: bytes) -> bytes | None:
        offset = packet.fragment_offset
        cost = len(body)
        insort(datagram.offsets, offset)
        datagram.pieces[offset] = body
        datagram.length += len(body)
        if not packet.more_fragments:
            datagram.end = offset + len(body)
        if offset == 0:
            datagram.head = _head(packet)
            cost += len(datagram.head)
        datagram.cost += cost
        self.held_bytes += cost
        if not datagram.head or datagram.length != datagram.end:
            return None
        if len(datagram.head) - (0 if packet.version == 4 else IP6_LENGTH) + datagram.end > 0xFFFF:
            self._bury(datagram)
            return None
        del self._datagrams[key]
        self.held_bytes -= datagram.cost
        joined = b"".join([datagram.pieces[place] for place in datagram.offsets])
        return _rebuild(packet.version, datagram.head, joined)

    def _bury(self, datagram: _Datagram) -> None:
        """Forget the pieces but keep the key, so that later fragments can't start anew (RFC 5722 §4)."""
        self.held_bytes -= datagram.cost - OVERHEAD
        self.dropped += 1
        datagram.buried = True
        datagram.cost = OVERHEAD
        datagram.offsets.clear()
        datagram.pieces.clear()
        datagram.head = b""

    def _drop_oldest(self) -> None:
        datagram = self._datagrams.pop(next(iter(self._datagrams)))
        self.held_bytes -= datagram.cost
        self.dropped += not datagram.buried


def _key(packet: Packet) -> bytes:
    """RFC 791: addresses, protocol, identification; RFC 8200: the same without the protocol."""
    protocol = packet.protocol if packet.version == 4 else 0
    addresses = packet.buffer[packet.src_at : packet.src_at + 2 * packet.address_length]
    return bytes(addresses) + packet.identification.to_bytes(4, "big") + bytes((protocol,))


def _body(packet: Packet) -> bytes:
    """The part of the fragmentable part that this fragment carries, extension headers in it included."""
    at = packet.l4 if packet.version == 4 else packet.fragment_at + IP6_FRAGMENT_LENGTH
    return bytes(packet.buffer[at : packet.start + packet.length])


def _head(packet: Packet) -> bytes:
    """The part in front of the fragmentable one, its next header no longer a fragment header."""
    if packet.version == 4:
        return bytes(packet.buffer[packet.start : packet.l4])
    head = packet.buffer[packet.start : packet.fragment_at]
    head[packet.next_header_at - packet.start] = packet.buffer[packet.fragment_at]
    return bytes(head)


def _rebuild(version: int, head: bytes, body: bytes) -> bytes:
    """One packet of a first fragment's head and the joined bodies, its lengths and checksum set."""
    packet = bytearray(head + body)
    if version == 6:
        packet[IP6_PAYLOAD_LENGTH : IP6_PAYLOAD_LENGTH + 2] = (len(packet) - IP6_LENGTH).to_bytes(2, "big")
        return bytes(packet)
    packet[IP4_TOTAL_LENGTH : IP4_TOTAL_LENGTH + 2] = len(packet).to_bytes(2, "big")
    packet[IP4_FRAGMENT : IP4_FRAGMENT + 2] = bytes(2)
    packet[IP4_CHECKSUM : IP4_CHECKSUM + 2] = bytes(2)
    checksum = finish(sum16(packet, 0, len(head), 0))
    packet[IP4_CHECKSUM : IP4_CHECKSUM + 2] = checksum.to_bytes(2, "big")
    return bytes(packet)
