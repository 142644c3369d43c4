"""From a captured packet to the UDP datagrams in it: link layer, IP, UDP, and what offload put together.

Link-layer types are tcpdump.org's LINKTYPE_ numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from nat.header import IP4_TOS, UDP_DATAGRAM_LENGTH, UDP_LENGTH
from nat.header import Protocol as Ip
from nat.packet import Packet
from zignet.noise import MessageType
from zignet.wire.capture import MOST_BYTES
from zignet.wire.data import DATA_COUNTER, DATA_LEAST

__all__ = ["LINKS", "Datagram", "Finder", "apart"]

# type -> bytes in front of the IP header
LINKS = {
    0: 4,  # BSD loopback (null)
    1: 14,  # Ethernet
    12: 0,  # raw IP, as two systems number it
    14: 0,
    101: 0,  # raw IP
    108: 4,  # OpenBSD loopback
    113: 16,  # Linux cooked
    228: 0,  # raw IPv4
    229: 0,  # raw IPv6
    276: 20,  # Linux cooked, version 2
}
_ETHERNET = 1
_TAGS = (b"\x81\x00", b"\x88\xa8", b"\x91\x00")  # IEEE 802.1Q, 802.1ad, and what was before it
_MOST_TAGS = 4


@dataclass(frozen=True, slots=True)
class Datagram:
    """One UDP datagram on the underlay."""

    source: IPv4Address | IPv6Address
    source_port: int
    target: IPv4Address | IPv6Address
    target_port: int
    ecn: int  # of its IP header
    payload: memoryview  # good until the next packet is looked at
    missing: int  # bytes of it that the capture did not keep


class Finder:
    """Looks into packets one by one; its buffer is used again and again."""

    def __init__(self) -> None:
        self._buffer = bytearray(MOST_BYTES)
        self._memory = memoryview(self._buffer)
        self._packet = Packet(self._buffer)
        self.fragments = 0  # IP fragments, which are passed over
        self.unknown_links: set[int] = set()

    def find(self, link: int, data: bytes) -> Datagram | None:
        """The UDP datagram in a packet of this link-layer type; None: there is none, or none that can be read."""
        at = LINKS.get(link)
        if at is None:
            self.unknown_links.add(link)
            return None
        if link == _ETHERNET:
            for _ in range(_MOST_TAGS):
                if data[at - 2 : at] in _TAGS:
                    at += 4
        size = len(data) - at
        if size <= 0:
            return None
        self._buffer[:size] = data[at:]
        packet = self._packet
        if packet.parse(
            0, size, quoted=True
        ):  # "quoted": its end may be missing, and checksums are not looked at
            return None
        if packet.protocol != Ip.UDP:
            return None
        if packet.fragment:
            self.fragments += 1
            return None
        return self._datagram() if packet.has_transport else None

    def _datagram(self) -> Datagram:
        packet, buffer = self._packet, self._buffer
        address = IPv4Address if packet.version == 4 else IPv6Address
        ecn = buffer[IP4_TOS] if packet.version == 4 else buffer[1] >> 4
        length = packet.l4 + UDP_DATAGRAM_LENGTH
        wanted = int.from_bytes(buffer[length : length + 2], "big") - UDP_LENGTH
        return Datagram(
            address(packet.source()),
            packet.source_port,
            address(packet.target()),
            packet.target_port,
            ecn & 3,
            self._memory[packet.payload_at : packet.payload_at + packet.payload_length],
            wanted - packet.payload_length,
        )


def apart(payload: memoryview, missing: int = 0) -> list[memoryview]:
    """The messages in what was captured as one datagram, `missing` bytes of whose end were not kept.

    Where the interface cuts (UDP_SEGMENT) or joins (UDP_GRO), a capture holds many in one: all of one size but the
    last. Data messages tell where they begin: the next has the same first 8 bytes.
    """
    if len(payload) < DATA_LEAST or payload[0] != MessageType.DATA:
        return [payload]
    head = bytes(payload[:DATA_COUNTER])
    size = bytes(payload).find(head, DATA_LEAST)
    if size < 0:
        return [payload]
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
    if any(piece[:4] != head[: len(piece[:4])] for piece in pieces) or len(pieces[-1]) + missing < DATA_LEAST:
        return [payload]
    return pieces
