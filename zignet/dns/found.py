"""What an answer says about the addresses of a name (RFC 1034 §3.6.2, RFC 2308). Pure."""

from __future__ import annotations

from typing import NamedTuple

from zignet.dns.wire import (
    AAAA,
    CNAME,
    IN,
    NOERROR,
    NXDOMAIN,
    SOA,
    A,
    BadMessage,
    question_of,
    read_name,
    records_of,
)

__all__ = ["Found", "found_in"]

MOST_ALIASES = 16  # CNAMEs, one behind the other
MOST_RECORDS = 512  # looked at
MINIMUM = 4  # bytes at the end of an SOA's data
SIZES = {A: 4, AAAA: 16}


class Found(NamedTuple):
    """Addresses of one family, or why there are none."""

    addresses: tuple[bytes, ...]
    ttl: int  # seconds that this holds; of a negative answer by its SOA
    exists: bool = True  # False: NXDOMAIN
    failed: str = ""  # no answer that says anything


def found_in(answer: bytes | None) -> Found:
    """Read an answer to a query for A or AAAA records; the aliases in it are followed, by name."""
    if answer is None:
        return Found((), 0, failed="no name server answers")
    try:
        return _read(answer)
    except BadMessage as error:
        return Found((), 0, failed=f"a name server's answer can't be read: {error}")


def _read(answer: bytes) -> Found:
    code = answer[3] & 0x0F
    if code not in (NOERROR, NXDOMAIN):
        return Found((), 0, failed=f"the name servers have failed (code {code})")
    question = question_of(answer)
    size = SIZES.get(question.kind, -1)  # of no other are there addresses
    aliases: dict[str, tuple[str, int]] = {}
    addresses: dict[str, list[tuple[bytes, int]]] = {}
    negative_ttl = 0
    for number, record in enumerate(records_of(answer, question.end)):
        if number >= MOST_RECORDS:
            break
        if record.family != IN:
            continue
        data = answer[record.at : record.at + record.length]
        if record.section == 0 and record.kind == question.kind and len(data) == size:
            addresses.setdefault(record.name, []).append((data, record.ttl))
        elif record.section == 0 and record.kind == CNAME:
            aliases[record.name] = read_name(answer, record.at)[0], record.ttl
        elif record.section == 1 and record.kind == SOA and len(data) >= MINIMUM:
            negative_ttl = min(record.ttl, int.from_bytes(data[-MINIMUM:], "big"))  # RFC 2308 §5
    name, ttl = question.name, 1 << 31
    for _ in range(MOST_ALIASES):
        if name in addresses:
            found = addresses[name]
            return Found(tuple(address for address, _ in found), min(ttl, *(each for _, each in found)))
        if name not in aliases:
            break
        name, alias_ttl = aliases[name]
        ttl = min(ttl, alias_ttl)
    return Found((), min(ttl, negative_ttl), exists=code != NXDOMAIN)
