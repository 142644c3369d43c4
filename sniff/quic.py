"""QUIC Initial packets: headers, frames, and the CRYPTO stream that they carry.

Pure parsing; what needs keys is in `quic_keys`. A datagram may hold several packets (RFC 9000 §12.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["CryptoStream", "LongPacket", "Malformed", "Version", "crypto_frames", "packet_number", "packets"]


@dataclass(frozen=True, slots=True)
class Version:
    """What Initial packets of a version have of their own."""

    salt: bytes
    label: str  # prefix of the key labels
    initial: int  # the packet type in bits 4 and 5 of the first byte


_VERSIONS = {
    # RFC 9001 §5.2
    0x00000001: Version(bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"), "quic", 0),
    # RFC 9369 §3.2, §3.3
    0x6B3343CF: Version(bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9"), "quicv2", 1),
    # draft-ietf-quic-tls-29 §5.2
    0xFF00001D: Version(bytes.fromhex("afbfec289993d24c9e9786f19c6111e04390a899"), "quic", 0),
}

# Long header, RFC 9000 §17.2.
_LONG_HEADER = 0x80
_VERSION = 1
_DESTINATION_CID = 5  # its length, then itself
_MAX_CID = 20

# Frames that an Initial packet may hold, RFC 9000 §12.4 and §19.
_PADDING, _PING, _ACK, _ACK_ECN, _CRYPTO, _CONNECTION_CLOSE = 0x00, 0x01, 0x02, 0x03, 0x06, 0x1C


class Malformed(ValueError):
    """The bytes break the rules of the protocol."""


@dataclass(frozen=True, slots=True)
class LongPacket:
    """One packet with a long header inside a datagram, still protected."""

    version: Version
    initial: bool
    destination_cid: bytes
    start: int  # offset of the packet in the datagram
    number: int  # offset of its packet number
    stop: int  # offset behind it


def packets(datagram: bytes) -> Iterator[LongPacket]:
    """The packets of a datagram that a client sends in a known version, up to the first that is none."""
    at = 0
    while at < len(datagram):
        try:
            packet = _packet(datagram, at)
        except Malformed:
            return
        if packet is None:
            return
        yield packet
        at = packet.stop


def _packet(datagram: bytes, start: int) -> LongPacket | None:
    """The packet at `start`; None when it has no long header of a known version, or is a Retry."""
    number_of_version = int.from_bytes(datagram[start + _VERSION : start + _DESTINATION_CID], "big")
    version = _VERSIONS.get(number_of_version)
    if version is None or not datagram[start] & _LONG_HEADER:
        return None
    destination_cid, at = _connection_id(datagram, start + _DESTINATION_CID)
    _, at = _connection_id(datagram, at)
    kind = datagram[start] >> 4 & 3
    if kind == (version.initial - 1) & 3:  # Retry is the type before Initial; only servers send it
        return None
    if kind == version.initial:
        token, at = _integer(datagram, at)
        at += token
    length, at = _integer(datagram, at)
    if at + length > len(datagram):
        raise Malformed("a packet that is cut off")
    return LongPacket(version, kind == version.initial, destination_cid, start, at, at + length)


def packet_number(truncated: int, size: int, largest: int) -> int:
    """The whole packet number, RFC 9000 §A.3.

    `truncated` came in `size` bytes; `largest` is the largest one seen so far, -1 before the first.
    """
    expected = largest + 1
    window = 1 << 8 * size
    candidate = expected & -window | truncated
    if candidate <= expected - window // 2 and candidate < (1 << 62) - window:
        return candidate + window
    if candidate > expected + window // 2 and candidate >= window:
        return candidate - window
    return candidate


def crypto_frames(payload: bytes) -> Iterator[tuple[int, bytes] | None]:
    """(offset, data) of each CRYPTO frame of an Initial packet; None for a CONNECTION_CLOSE, the last thing.

    Raises `Malformed` on reaching a frame that is cut off or may not be in an Initial packet.
    """
    at = 0
    size = len(payload)
    while at < size:
        kind = payload[at]
        at += 1
        if kind == _PADDING:
            at = size - len(payload[at:].lstrip(b"\0"))
        elif kind == _CRYPTO:
            offset, at = _integer(payload, at)
            length, at = _integer(payload, at)
            if at + length > size:
                raise Malformed("a CRYPTO frame that is cut off")
            yield offset, payload[at : at + length]
            at += length
        elif kind in (_ACK, _ACK_ECN):
            at = _skip_ack(payload, at, ecn=kind == _ACK_ECN)
        elif kind == _CONNECTION_CLOSE:
            yield None
            return
        elif kind != _PING:
            raise Malformed("a frame that no Initial packet may hold")


class CryptoStream:
    """Puts the CRYPTO frames of a flow in order (RFC 9000 §7.5): any order, overlaps and repeats."""

    __slots__ = ("_ahead", "_limit", "_room", "received")

    def __init__(self, limit: int) -> None:
        self._limit = limit  # bytes of the stream
        self._room = 2 * limit  # bytes that may wait for their turn, repeats and all
        self._ahead: dict[int, bytes] = {}  # what came before its turn, by offset
        self.received = bytearray()  # everything from offset 0 to the first gap

    def add(self, offset: int, data: bytes) -> None:
        """Keeps one frame. Raises `Malformed` when it lies beyond the limit."""
        if offset + len(data) > self._limit:
            raise Malformed("a CRYPTO stream that is too long")
        if offset <= len(self.received):
            self.received += data[len(self.received) - offset :]
        elif len(self._ahead.get(offset, b"")) < len(data):
            self._room -= len(data)
            if self._room < 0:
                raise Malformed("a CRYPTO stream that repeats itself too often")
            self._ahead[offset] = data

    def settle(self) -> None:
        """Joins what fits by now; once a packet is enough."""
        if not self._ahead:
            return
        received = self.received
        for offset in sorted(self._ahead):
            if offset > len(received):
                break
            received += self._ahead.pop(offset)[len(received) - offset :]


def _connection_id(datagram: bytes, at: int) -> tuple[bytes, int]:
    """A connection ID with its length before it, and the offset behind it."""
    if at >= len(datagram):
        raise Malformed("a connection ID that is cut off")
    length = datagram[at]
    at += 1
    if length > _MAX_CID or at + length > len(datagram):
        raise Malformed("a connection ID that is too long")
    return datagram[at : at + length], at + length


def _integer(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length integer and the offset behind it, RFC 9000 §16."""
    if at >= len(data):
        raise Malformed("an integer that is cut off")
    size = 1 << (data[at] >> 6)
    stop = at + size
    if stop > len(data):
        raise Malformed("an integer that is cut off")
    return int.from_bytes(data[at:stop], "big") & (1 << (8 * size - 2)) - 1, stop


def _skip_ack(payload: bytes, at: int, *, ecn: bool) -> int:
    """The offset behind an ACK frame whose type was read, RFC 9000 §19.3."""
    _, at = _integer(payload, at)  # largest acknowledged
    _, at = _integer(payload, at)  # delay
    ranges, at = _integer(payload, at)
    for _ in range(1 + 2 * ranges + 3 * ecn):  # ends at the payload's end at the latest
        _, at = _integer(payload, at)
    return at
