"""HTTPS and SVCB records (RFC 9460) of a name with fake addresses: what they say, without what leads past us. Pure.

    ipv4hint, ipv6hint     gone: an application would connect to them instead of the fake address
    ech                    gone: it would hide the name from rules that look at it
    alpn, port, all else   as it was
    another name as target stays only where that has fake addresses too; else a flow to it would not come here

Aliases (CNAME) are followed, and the records given to the name that was asked: "." as a target is then that name, which
has the fake address. A record to which one of the parameters above is mandatory goes, and so does a set of records of
which one is malformed (§2.2). What is left may be nothing: the application then takes the addresses alone (§3).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from zignet.dns.wire import (
    CNAME,
    HEADER,
    IN,
    NOERROR,
    BadMessage,
    encode_name,
    question_of,
    read_name,
    records_of,
)

__all__ = ["Service", "services_in"]

MANDATORY, IPV4HINT, ECH, IPV6HINT = 0, 4, 5, 6  # SvcParamKeys (§14.3.2)
TAKEN_OUT = frozenset((IPV4HINT, ECH, IPV6HINT))
ALIAS_MODE = b"\0\0"  # as the priority (§2.4.2)
TC = 0x02  # of the first byte of flags
MOST_TTL_S = 300  # the rules may change
MOST_ALIASES = 16
MOST_RECORDS = 64  # of a name; looked at are eight times as many
parameter = struct.Struct(">HH")  # key, length of the value


class Service(NamedTuple):
    """One record."""

    ttl: int  # seconds
    data: bytes  # RDATA


def services_in(answer: bytes, is_fake: Callable[[str], bool]) -> list[Service]:
    """What is left of an answer to a query for HTTPS or SVCB records; nothing of one that can't be read."""
    try:
        return _read(answer, is_fake)
    except BadMessage:
        return []


def _read(answer: bytes, is_fake: Callable[[str], bool]) -> list[Service]:
    question = question_of(answer)
    if answer[3] & 0x0F != NOERROR or answer[2] & TC:
        return []
    aliases: dict[str, tuple[str, int]] = {}
    found: dict[str, list[tuple[int, int, int]]] = {}
    for count, record in enumerate(records_of(answer, question.end)):
        if count >= 8 * MOST_RECORDS or record.section:
            break
        if record.family == IN and record.kind == CNAME:
            aliases[record.name] = read_name(answer, record.at)[0], record.ttl
        elif record.family == IN and record.kind == question.kind:
            found.setdefault(record.name, []).append((record.ttl, record.at, record.at + record.length))
    name, ttl = question.name, MOST_TTL_S
    for _ in range(MOST_ALIASES):
        if name in found or name not in aliases:
            break
        name, alias_ttl = aliases[name]
        ttl = min(ttl, alias_ttl)
    read = [(min(ttl, each), _stripped(answer[at:end], is_fake)) for each, at, end in found.get(name, ())]
    return [Service(ttl, data) for ttl, data in read[:MOST_RECORDS] if data]


def _stripped(data: bytes, is_fake: Callable[[str], bool]) -> bytes:
    """The record's data; nothing if it leads elsewhere. Raises `BadMessage`."""
    if len(data) < 3:
        raise BadMessage("a service record without a target")
    target, end = read_name(bytes(HEADER) + data, HEADER + 2)
    wire = encode_name(target)
    at = 2 + len(wire)
    if end - HEADER != at:
        raise BadMessage("a compressed target")  # §2.2
    kept = [data[:2], wire]
    last = -1
    usable = not target or is_fake(target)
    while at < len(data):
        if at + parameter.size > len(data):
            raise BadMessage("a service parameter runs over the end")
        key, length = parameter.unpack_from(data, at)
        end = at + parameter.size + length
        if end > len(data) or key <= last:
            raise BadMessage("service parameters that run over the end, or are in no order")
        if key == MANDATORY and not TAKEN_OUT.isdisjoint(_keys(data[at + parameter.size : end])):
            usable = False
        if key not in TAKEN_OUT:
            kept.append(data[at:end])
        at, last = end, key
    if data[:2] == ALIAS_MODE:  # its parameters mean nothing (§2.4.2)
        kept[2:] = []
    return b"".join(kept) if usable else b""


def _keys(value: bytes) -> list[int]:
    if not value or len(value) % 2:
        raise BadMessage("no list of keys")
    return [value[at] << 8 | value[at + 1] for at in range(0, len(value), 2)]
