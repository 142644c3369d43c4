"""Captures as `tcpdump -w` and Wireshark write them: pcap and pcapng, read as a stream.

Sources: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng. Whatever the bytes, memory is bounded: no record is
taken that says to be longer than a capture's records can be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct, error
from typing import BinaryIO

__all__ = ["MOST_BYTES", "BadCapture", "Capture", "Record"]

MOST_BYTES = 1 << 18  # of one packet: libpcap's own limit for the link types that we read
_MOST_BLOCK = MOST_BYTES + (1 << 16)  # of a pcapng block that we look into; others are skipped, however long
_CHUNK = 1 << 16
_NANO = 10**9

# pcap: magic number -> byte order, units of a second
_MAGICS = {
    b"\xd4\xc3\xb2\xa1": ("<", 10**6),
    b"\xa1\xb2\xc3\xd4": (">", 10**6),
    b"\x4d\x3c\xb2\xa1": ("<", 10**9),
    b"\xa1\xb2\x3c\x4d": (">", 10**9),
}

# pcapng: block types and options
_SECTION = b"\x0a\x0d\x0d\x0a"  # the same in both byte orders
_BYTE_ORDERS = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}
_INTERFACE, _OBSOLETE, _SIMPLE, _ENHANCED = 1, 2, 3, 6
_RESOLUTION, _OFFSET = 9, 14
_MOST_INTERFACES = 4096  # ours


class BadCapture(ValueError):
    """A file that is no capture. The text says what it seems to be instead, if that is known."""


@dataclass(frozen=True, slots=True)
class Record:
    """One captured packet."""

    time: int | None  # nanoseconds since 1970; None where the capture does not say
    link: int  # the link-layer type, tcpdump.org's LINKTYPE_ number
    data: bytes
    length: int  # bytes it had; the capture may have kept fewer


class Capture:
    """The records of a capture, in the file's order. Raises BadCapture where the file does not begin as one.

    What is wrong further behind ends the reading; then `problem` says so, and `damaged` whether it is more than an
    end that is missing.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.bytes_read = 0
        self.problem: str | None = None
        self.damaged = False
        self._magic = self._read(4)
        if self._magic not in _MAGICS and self._magic != _SECTION:
            raise BadCapture(_guess(self._magic))

    def __iter__(self) -> Iterator[Record]:
        try:
            yield from self._pcapng() if self._magic == _SECTION else self._pcap()
        except _EndsEarly:
            self.problem = "the capture ends within a record: it was cut off"
        except _Damaged as reason:
            self.problem = f"the capture is damaged: {reason}, {self.bytes_read} bytes behind its beginning"
            self.damaged = True

    def _read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self.bytes_read += len(data)
        return data

    def _exactly(self, size: int) -> bytes:
        data = self._read(size)
        if len(data) < size:
            raise _EndsEarly
        return data

    def _more(self, size: int) -> bytes | None:
        """The head of the next record, or None where the file properly ends."""
        data = self._read(size)
        if data and len(data) < size:
            raise _EndsEarly
        return data or None

    # --- pcap

    def _pcap(self) -> Iterator[Record]:
        order, units = _MAGICS[self._magic]
        link = Struct(order + "I").unpack(self._exactly(20)[16:])[0] & 0xFFFF
        head = Struct(order + "IIII")
        while (start := self._more(head.size)) is not None:
            seconds, fraction, size, length = head.unpack(start)
            if size > MOST_BYTES:
                raise _Damaged(f"a packet of {size} bytes")
            time = seconds * _NANO + fraction * (_NANO // units)
            yield Record(time, link, self._exactly(size), length)

    # --- pcapng

    def _pcapng(self) -> Iterator[Record]:
        order, interfaces = self._section()
        while (start := self._more(8)) is not None:
            if start[:4] == _SECTION:
                order, interfaces = self._section(start[4:])
                continue
            kind, size = Struct(order + "II").unpack(start)
            if size % 4 or size < 12:
                raise _Damaged(f"a block of {size} bytes")
            record = None
            if kind not in (_INTERFACE, _OBSOLETE, _SIMPLE, _ENHANCED):
                self._skip(size - 12)
            elif size > _MOST_BLOCK:
                raise _Damaged(f"a block of {size} bytes")
            else:
                record = _block(kind, self._exactly(size - 12), order, interfaces)
            self._end_of_block(order, size)
            if record is not None:
                yield record

    def _section(self, length: bytes = b"") -> tuple[str, list[_Interface]]:
        length = length or self._exactly(4)
        order = _BYTE_ORDERS.get(self._exactly(4))
        if order is None:
            raise _Damaged("a section without a byte order")
        size = Struct(order + "I").unpack(length)[0]
        if size % 4 or size < 28:
            raise _Damaged(f"a section header of {size} bytes")
        major = Struct(order + "H").unpack(self._exactly(2))[0]
        if major != 1:
            raise _Damaged(f"version {major} of the format is not known")
        self._skip(size - 18)
        self._end_of_block(order, size)
        return order, []

    def _end_of_block(self, order: str, size: int) -> None:
        if Struct(order + "I").unpack(self._exactly(4))[0] != size:
            raise _Damaged("a block whose two lengths differ")

    def _skip(self, size: int) -> None:
        while size > 0:
            size -= len(self._exactly(min(size, _CHUNK)))


class _EndsEarly(Exception):
    """The file ends inside of something."""


class _Damaged(Exception):
    """Something that can't be."""


@dataclass(frozen=True, slots=True)
class _Interface:
    link: int
    snap: int  # bytes kept of a packet; 0: all
    units: int  # of a second
    offset: int  # seconds


def _block(kind: int, body: bytes, order: str, interfaces: list[_Interface]) -> Record | None:
    """The packet of a block; an interface is added to the list."""
    try:
        if kind == _INTERFACE:
            if len(interfaces) >= _MOST_INTERFACES:
                raise _Damaged(f"more than {_MOST_INTERFACES} interfaces")
            interfaces.append(_interface(body, order))
            return None
        number, high, low, at = 0, 0, 0, 4
        if kind == _SIMPLE:
            (length,) = Struct(order + "I").unpack_from(body)
            size = min(length, interfaces[0].snap or length) if interfaces else length
        else:
            layout = "IIIII" if kind == _ENHANCED else "HxxIIII"
            number, high, low, size, length = Struct(order + layout).unpack_from(body)
            at = 20
    except error:
        raise _Damaged("a block that is too short") from None
    if number >= len(interfaces):
        raise _Damaged("a packet of an interface that was not described")
    if size > MOST_BYTES or at + size > len(body):
        raise _Damaged(f"a packet of {size} bytes in a block of {len(body)}")
    one = interfaces[number]
    time = None if kind == _SIMPLE else (high << 32 | low) * _NANO // one.units + one.offset * _NANO
    return Record(time, one.link, body[at : at + size], length)


def _interface(body: bytes, order: str) -> _Interface:
    link, snap = Struct(order + "HxxI").unpack_from(body)
    units, offset, at = 10**6, 0, 8
    while at + 4 <= len(body):
        code, size = Struct(order + "HH").unpack_from(body, at)
        value = body[at + 4 : at + 4 + size]
        if code == 0 or len(value) < size:
            break
        if code == _RESOLUTION and size == 1:
            units = 2 ** (value[0] & 0x7F) if value[0] & 0x80 else 10 ** value[0]
        elif code == _OFFSET and size == 8:
            offset = int(Struct(order + "q").unpack(value)[0])
        at += 4 + (size + 3) // 4 * 4
    return _Interface(link, snap, units, offset)


def _guess(magic: bytes) -> str:
    if not magic:
        return "the file is empty"
    if magic[:2] == b"\x1f\x8b":
        return "it is compressed: unpack it with gunzip first"
    if magic[:4] == b"\x28\xb5\x2f\xfd":
        return "it is compressed: unpack it with zstd -d first"
    return "it is neither a pcap nor a pcapng capture"
