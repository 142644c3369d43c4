"""DNS messages, as far as they are read here (RFC 1035 §4): the question, the records, names. Pure.

Whatever does not hold together is a `BadMessage`, and nothing else. The cost is bounded by the message's length:
a compression pointer leads only backwards, and a name ends after 255 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

__all__ = [
    "AAAA",
    "ANY",
    "CNAME",
    "EDNS_SIZE",
    "FORMERR",
    "HEADER",
    "HTTPS",
    "IN",
    "NOERROR",
    "NOTIMP",
    "NS",
    "NXDOMAIN",
    "OPT",
    "PTR",
    "REFUSED",
    "SERVFAIL",
    "SOA",
    "SVCB",
    "A",
    "BadMessage",
    "Question",
    "Record",
    "encode_name",
    "is_answer_to",
    "make_query",
    "question_of",
    "read_name",
    "records_of",
]

HEADER = 12  # bytes
A, NS, CNAME, SOA, PTR, AAAA, OPT, SVCB, HTTPS, ANY = 1, 2, 5, 6, 12, 28, 41, 64, 65, 255  # types
IN = 1  # class
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)  # RCODE
QR, TC, RD = 0x8000, 0x0200, 0x0100  # bits of the flags
MAX_NAME = 255  # bytes on the wire (RFC 1035 §3.1)
EDNS_SIZE = 1232  # bytes that we take in a datagram: what no path cuts into fragments

header = struct.Struct(">HHHHHH")  # id, flags, questions, answers, authority, additional
fixed = struct.Struct(">HHIH")  # type, class, TTL, length of the data


class BadMessage(ValueError):
    """Not a DNS message."""


class Question(NamedTuple):
    """The only question of a message."""

    name: str  # lower case, no trailing dot; "" for the root
    kind: int  # QTYPE
    family: int  # QCLASS
    end: int  # where it ends in the message


class Record(NamedTuple):
    """A resource record."""

    name: str
    kind: int
    family: int
    ttl: int  # seconds
    at: int  # where its data begins
    length: int
    section: int  # 0 answers, 1 authority, 2 additional


def read_name(message: bytes, at: int) -> tuple[str, int]:
    """The name at an offset and where what follows it begins. Bytes that no host name has are written as \\ddd."""
    labels: list[str] = []
    size = 0
    after = 0
    limit = at + 1
    while True:
        if at >= len(message):
            raise BadMessage("a name runs over the end")
        length = message[at]
        if length >= 0xC0:  # RFC 1035 §4.1.4
            if at + 1 >= len(message):
                raise BadMessage("a name runs over the end")
            target = (length & 0x3F) << 8 | message[at + 1]
            after = after or at + 2
            if target >= limit - 1 or target < HEADER:
                raise BadMessage("a compression pointer does not lead back")
            at = target
            limit = at + 1
            continue
        if length > 63:
            raise BadMessage("an unknown kind of label")
        if length == 0:
            return ".".join(labels), after or at + 1
        label = message[at + 1 : at + 1 + length]
        if len(label) < length:
            raise BadMessage("a name runs over the end")
        size += length + 1
        if size >= MAX_NAME:
            raise BadMessage("a name of more than 255 bytes")
        labels.append(_text(label))
        at += 1 + length


def _text(label: bytes) -> str:
    text = label.lower()
    if text.isascii() and text.replace(b"-", b"").replace(b"_", b"").isalnum():
        return text.decode("ascii")
    return "".join(
        chr(byte) if 0x21 <= byte < 0x7F and byte not in b".\\" else f"\\{byte:03d}" for byte in text
    )


def encode_name(name: str) -> bytes:
    """A name on the wire, uncompressed. Raises `BadMessage` for one that is none."""
    if not name or name == ".":
        return b"\0"
    wire = bytearray()
    for label in name.removesuffix(".").split("."):
        try:
            data = label.encode("ascii")
        except UnicodeEncodeError:
            raise BadMessage(f"{name!r} is not ASCII") from None
        if not 1 <= len(data) <= 63:
            raise BadMessage(f"{name!r} has a label of {len(data)} characters")
        wire.append(len(data))
        wire += data
    if len(wire) >= MAX_NAME:
        raise BadMessage(f"{name!r} is longer than a name can be")
    return bytes(wire) + b"\0"


def question_of(message: bytes) -> Question:
    """The question of a message that has exactly one."""
    if len(message) < HEADER or message[4:6] != b"\0\1":
        raise BadMessage("not one question")
    name, at = read_name(message, HEADER)
    if at + 4 > len(message):
        raise BadMessage("the question runs over the end")
    return Question(name, message[at] << 8 | message[at + 1], message[at + 2] << 8 | message[at + 3], at + 4)


def records_of(message: bytes, at: int) -> Iterator[Record]:
    """All records, from the end of the question on."""
    for section, count in enumerate(header.unpack_from(message)[3:]):
        for _ in range(count):
            name, at = read_name(message, at)
            if at + fixed.size > len(message):
                raise BadMessage("a record runs over the end")
            kind, family, ttl, length = fixed.unpack_from(message, at)
            at += fixed.size
            if at + length > len(message):
                raise BadMessage("a record's data runs over the end")
            yield Record(name, kind, family, ttl if ttl < 1 << 31 else 0, at, length, section)  # RFC 2181 §8
            at += length


def make_query(name: str, kind: int, number: int = 0) -> bytes:
    """A recursive query. Raises `BadMessage` for a name that is none.

    Without EDNS: old servers in routers take it for an error, and what does not fit comes by TCP.
    """
    question = encode_name(name) + kind.to_bytes(2, "big") + b"\0\1"
    return header.pack(number, RD, 1, 0, 0, 0) + question


def is_answer_to(query: bytes, end: int, answer: bytes) -> bool:
    """Whether this answers `query`, whose question ends at `end`: id, question (its case as well), direction.

    A server that could not read the question may leave it out, with an error (RFC 2308 has NXDOMAIN keep it).
    """
    if len(answer) < HEADER or answer[:2] != query[:2] or not answer[2] & 0x80:
        return False
    if (answer[2] ^ query[2]) & 0x78:  # OPCODE
        return False
    if answer[4:6] == b"\0\0":
        return answer[3] & 0x0F in (FORMERR, SERVFAIL, NOTIMP, REFUSED)
    return answer[4:6] == b"\0\1" and answer[HEADER:end] == query[HEADER:end]
