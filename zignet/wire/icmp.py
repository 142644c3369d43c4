"""ICMP messages that cross the wire, and the packets that errors quote (docs/protocol.md §6).

An error that host X sends to its peer P quotes a packet of P, as X's kernel saw it: with the addresses that X
uses. They are blanked on the way out, and P writes those that it uses:

    X: quote P@X -> X@X      wire: quote 0 -> 0      P: quote P@P -> X@P
"""

from __future__ import annotations

from nat.checksum import finish, pseudo_sum, sum16
from nat.header import (
    ICMP_CHECKSUM,
    ICMP_LENGTH,
    ICMP_TYPE,
    IP4_CHECKSUM,
    IP4_LENGTH,
    IP4_SOURCE,
    IP6_LENGTH,
    IP6_SOURCE,
    Icmp4,
    Icmp6,
    Protocol,
)
from zignet.wire.frame import BadFrame

__all__ = ["blank_checksums", "inward", "is_error", "outward", "quoted_addresses", "stays_here"]

_ERRORS4 = frozenset(
    (Icmp4.UNREACHABLE, Icmp4.SOURCE_QUENCH, Icmp4.REDIRECT, Icmp4.TIME_EXCEEDED, Icmp4.PARAMETER)
)

# What speaks of the sender's own link, by the IANA registries: redirects and router discovery; multicast
# listeners, router and neighbour discovery with its extensions, multicast routers.
_OF_A_LINK4 = frozenset((Icmp4.REDIRECT, 9, 10))
_OF_A_LINK6 = frozenset((*range(130, 138), 141, 142, 143, 148, 149, 151, 152, 153))


def is_error(v6: bool, kind: int) -> bool:
    """Whether an ICMP or ICMPv6 message of this type quotes a packet (RFC 1122 §3.2.2; RFC 4443 §2.1)."""
    return kind < Icmp6.ECHO if v6 else kind in _ERRORS4


def stays_here(v6: bool, kind: int) -> bool:
    """Whether a message of this type means nothing beyond its own link, and so never crosses the wire."""
    return kind in (_OF_A_LINK6 if v6 else _OF_A_LINK4)


def outward(message: bytes | bytearray, source: bytes, target: bytes) -> bytearray:
    """An ICMP error from `source` to `target`, as it crosses: quoted addresses and both checksums are zero.

    Raises BadFrame where the quote does not hold a whole IP header, or is no packet from `target` to `source`.
    The message's own checksum must have been checked: the receiver makes a new one.
    """
    result = bytearray(message)
    at, end = quoted_addresses(result, len(source))
    if result[at:end] != target + source:
        raise BadFrame("an ICMP error about a packet that its receiver did not send")
    result[at:end] = bytes(end - at)
    blank_checksums(result, len(source))
    return result


def inward(message: bytes | bytearray, source: bytes, target: bytes) -> bytearray:
    """The reverse, where the error comes from `source` (the peer) to `target` (this host), both as known here.

    Raises BadFrame as well where what must be zero is not.
    """
    result = bytearray(message)
    at, end = quoted_addresses(result, len(source))
    blank = result[:]
    blank[at:end] = bytes(end - at)
    blank_checksums(blank, len(source))
    if blank != result:
        raise BadFrame("an ICMP error whose quote tells addresses or checksums")
    result[at:end] = target + source
    pseudo = 0
    if len(source) == 4:
        head = (result[ICMP_LENGTH] & 0x0F) * 4
        _put16(result, ICMP_LENGTH + IP4_CHECKSUM, finish(sum16(result, ICMP_LENGTH, head, 0)))
    else:
        pseudo = pseudo_sum(source, target, Protocol.ICMPV6.value, len(result))
    _put16(result, ICMP_CHECKSUM, finish(sum16(result, 0, len(result), pseudo)))
    return result


def quoted_addresses(message: bytearray, size: int) -> tuple[int, int]:
    """Where both addresses of the quoted packet stand, each of `size` bytes. Raises BadFrame."""
    quote = len(message) - ICMP_LENGTH
    if not is_error(size == 16, message[ICMP_TYPE] if message else 0xFF):
        raise BadFrame("not an ICMP error")
    version, least, at = (4, IP4_LENGTH, IP4_SOURCE) if size == 4 else (6, IP6_LENGTH, IP6_SOURCE)
    if quote < least or message[ICMP_LENGTH] >> 4 != version:
        raise BadFrame("an ICMP error that quotes no IP header")
    if version == 4 and not IP4_LENGTH <= (message[ICMP_LENGTH] & 0x0F) * 4 <= quote:
        raise BadFrame("an ICMP error that quotes a part of an IP header")
    return ICMP_LENGTH + at, ICMP_LENGTH + at + 2 * size


def blank_checksums(message: bytearray, size: int) -> None:
    """Both checksums of an ICMP error become zero: its own, and in IPv4 that of the quoted header."""
    _put16(message, ICMP_CHECKSUM, 0)
    if size == 4:
        _put16(message, ICMP_LENGTH + IP4_CHECKSUM, 0)


def _put16(buffer: bytearray, at: int, value: int) -> None:
    buffer[at : at + 2] = value.to_bytes(2, "big")
