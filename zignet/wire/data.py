"""Datagrams: the shapes of messages (docs/protocol.md §2), and the data message (§4). Little-endian.

`seal` and `unseal` are the plain way to do what `zignet.peers` does in place and in batches: its tests compare
the two, and `zignet wire-dump` opens what was captured.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct

from cryptography.exceptions import InvalidTag

from zignet.noise import COOKIE_SIZE, INITIATION_SIZE, RESPONSE_SIZE, MessageType, Suite, aead, nonce

__all__ = [
    "COUNTER_END",
    "DATA_COUNTER",
    "DATA_HEADER",
    "DATA_INDEX",
    "DATA_LEAST",
    "TAG",
    "BadDatagram",
    "kind_of",
    "parse_data",
    "seal",
    "unseal",
]

DATA_INDEX = 4
DATA_COUNTER = 8
DATA_HEADER = 16  # bytes in front of what is sealed
TAG = 16  # bytes that the seal adds behind
DATA_LEAST = DATA_HEADER + 4 + TAG  # a frame has at least its header
COUNTER_END = 1 << 60  # messages with one key (§5)

_SIZES: Mapping[int, int] = {
    MessageType.INITIATION: INITIATION_SIZE,
    MessageType.RESPONSE: RESPONSE_SIZE,
    MessageType.COOKIE: COOKIE_SIZE,
}
_DATA = Struct("<IIQ")


class BadDatagram(ValueError):
    """A datagram that is no data message, or whose seal is not good. The text says which."""


def kind_of(datagram: bytes | bytearray | memoryview) -> MessageType | None:
    """Which message it has the shape of: type, length, reserved bytes, an index that is not 0. None: of none."""
    size = len(datagram)
    if size < DATA_LEAST or not any(datagram[DATA_INDEX : DATA_INDEX + 4]):
        return None
    kind, suite = datagram[0], datagram[1]
    if datagram[2] or datagram[3]:
        return None
    if kind == MessageType.DATA:
        return None if suite else MessageType.DATA
    if size != _SIZES.get(kind):
        return None
    if kind == MessageType.COOKIE:
        return None if suite else MessageType.COOKIE
    return MessageType(kind) if suite in (Suite.CHACHA, Suite.AES) else None


def parse_data(datagram: bytes | bytearray | memoryview) -> tuple[int, int]:
    """Receiver's index and counter of a data message. Raises BadDatagram where it does not have the shape of one."""
    if kind_of(datagram) is not MessageType.DATA:
        raise BadDatagram("not a data message")
    _, index, counter = _DATA.unpack_from(datagram)
    if counter >= COUNTER_END:
        raise BadDatagram("the counter is beyond its end")
    return index, counter


def seal(suite: Suite, key: bytes, index: int, counter: int, frame: bytes) -> bytes:
    """A data message. Raises ValueError where index or counter are out of their range."""
    if not 0 < index < 1 << 32 or not 0 <= counter < COUNTER_END:
        raise ValueError("index or counter is out of range")
    sealed = aead(suite, key).encrypt(nonce(suite, counter), frame, None)
    return _DATA.pack(MessageType.DATA, index, counter) + sealed


def unseal(suite: Suite, key: bytes, datagram: bytes | bytearray | memoryview) -> bytes:
    """The frame that a data message seals. Raises BadDatagram; whether its counter is new is not looked at."""
    _, counter = parse_data(datagram)
    try:
        return aead(suite, key).decrypt(nonce(suite, counter), bytes(datagram[DATA_HEADER:]), None)
    except InvalidTag:
        raise BadDatagram("the seal is not good") from None
