"""The Internet checksum (RFC 1071), and its update in place (RFC 1624).

A *sum* is the one's complement sum of big-endian 16-bit words, perhaps not folded yet. A *checksum* is what
stands in a header: the complement of the folded sum. A *delta* is the folded sum to add when bytes change; a
flow computes it once. Compiled and interpreted, every function gives the same folded result.
"""

from __future__ import annotations

import sys

import cython

if cython.compiled:
    from cython.cimports.libc.string import memcpy

# Sums do not care about the byte order (RFC 1071 §2 B), so the compiled loop adds native words.
LITTLE_ENDIAN = cython.declare(cython.bint, sys.byteorder == "little")

CHECKSUM_AT_TCP = 16  # offset of the checksum in a TCP header
CHECKSUM_AT_UDP = 6
CHECKSUM_AT_ICMP = 2

__all__ = [
    "CHECKSUM_AT_ICMP",
    "CHECKSUM_AT_TCP",
    "CHECKSUM_AT_UDP",
    "adjust",
    "adjust_partial",
    "adjust_udp",
    "delta",
    "finish",
    "fold",
    "partial_checksum",
    "pseudo_sum",
    "sum16",
    "transport_checksum",
]


@cython.ccall
@cython.boundscheck(False)
@cython.wraparound(False)
def sum16(
    data: cython.const_uchar[::1],
    start: cython.Py_ssize_t,
    length: cython.Py_ssize_t,
    initial: cython.ulonglong = 0,
) -> cython.ulonglong:
    """The sum of `length` bytes of `data` from `start` on, added to `initial`; not folded.

    An odd last byte counts as the high half of a word. `initial` is a sum of at most 48 bits.
    Raises IndexError when the range is not inside `data`.
    """
    if start < 0 or length < 0 or length > len(data) - start:
        raise IndexError("the range is outside the buffer")
    if not cython.compiled:
        value = int.from_bytes(data[start : start + length], "big") << (8 * (length & 1))
        # 2**16 ≡ 1 modulo 0xffff: the remainder is the folded sum, but for 0xffff, zero's other name.
        return initial + (value % 0xFFFF or (0xFFFF if value else 0))
    total: cython.ulonglong = 0
    word: cython.ulonglong = 0
    at: cython.Py_ssize_t = start
    end: cython.Py_ssize_t = start + length
    while at + 8 <= end:
        memcpy(cython.address(word), cython.address(data[at]), 8)
        total += cython.cast(cython.uint, word) + (word >> 32)
        at += 8
    if at < end:
        word = 0
        memcpy(cython.address(word), cython.address(data[at]), end - at)
        total += cython.cast(cython.uint, word) + (word >> 32)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    if LITTLE_ENDIAN:
        total = ((total & 0xFF) << 8) | (total >> 8)
    return initial + total


@cython.ccall
@cython.exceptval(check=False)
def fold(total: cython.ulonglong) -> cython.uint:
    """A sum as 16 bits, by end-around carries. Only a sum of zero folds to zero."""
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@cython.ccall
@cython.exceptval(check=False)
def finish(total: cython.ulonglong) -> cython.uint:
    """The checksum to write for a sum: its folded complement."""
    return 0xFFFF - fold(total)


def pseudo_sum(source: bytes, target: bytes, protocol: int, length: int) -> int:
    """The sum of a pseudo-header: RFC 9293 §3.1 with addresses of 4 bytes, RFC 8200 §8.1 with 16; not folded.

    `length` is that of the transport header and its payload, in bytes.
    """
    total = sum16(source, 0, len(source), 0) + sum16(target, 0, len(target), 0)
    return total + protocol + (length >> 16) + (length & 0xFFFF)


def partial_checksum(source: bytes, target: bytes, protocol: int, length: int) -> int:
    """What the checksum field holds under NEEDS_CSUM: the folded pseudo-header sum, not complemented."""
    return fold(pseudo_sum(source, target, protocol, length))


def transport_checksum(
    data: bytes | bytearray | memoryview,
    start: int,
    length: int,
    *,
    source: bytes,
    target: bytes,
    protocol: int,
) -> int:
    """The checksum over a pseudo-header and `length` bytes from `start` on, whose checksum field holds zero.

    Over a segment whose field is filled in, the result is 0 exactly when it is right (RFC 1071 §1). UDP's
    rule that a computed 0 is sent as 0xffff (RFC 768) is the caller's.
    """
    return finish(sum16(data, start, length, pseudo_sum(source, target, protocol, length)))


def delta(old: bytes, new: bytes) -> int:
    """What to add to a sum when `old` becomes `new`: ~m + m' of RFC 1624 §3, 16 bits.

    Both start at an even offset of the packet; their lengths may differ. Deltas may be added, then folded.
    """
    return fold(sum16(new, 0, len(new), 0) + 0xFFFF - fold(sum16(old, 0, len(old), 0)))


@cython.ccall
@cython.wraparound(False)
def adjust(view: cython.uchar[::1], at: cython.Py_ssize_t, change: cython.uint) -> cython.void:
    """Update the checksum at offset `at` by a 16-bit delta: HC' = ~(~HC + change), RFC 1624 eqn. 3."""
    total: cython.uint = (0xFFFF ^ ((view[at] << 8) | view[at + 1])) + change
    total = 0xFFFF ^ ((total & 0xFFFF) + (total >> 16))
    view[at] = total >> 8
    view[at + 1] = total & 0xFF


@cython.ccall
@cython.wraparound(False)
def adjust_udp(view: cython.uchar[::1], at: cython.Py_ssize_t, change: cython.uint) -> cython.void:
    """As `adjust`, with UDP's zero (RFC 768): 0 is "no checksum" and stays; a computed 0 becomes 0xffff."""
    total: cython.uint = (view[at] << 8) | view[at + 1]
    if total == 0:
        return
    total = (0xFFFF ^ total) + change
    total = 0xFFFF ^ ((total & 0xFFFF) + (total >> 16))
    if total == 0:
        total = 0xFFFF
    view[at] = total >> 8
    view[at + 1] = total & 0xFF


@cython.ccall
@cython.wraparound(False)
def adjust_partial(view: cython.uchar[::1], at: cython.Py_ssize_t, change: cython.uint) -> cython.void:
    """Update a NEEDS_CSUM field: it sums the pseudo-header, so only a delta of *addresses* may reach it."""
    total: cython.uint = ((view[at] << 8) | view[at + 1]) + change
    total = (total & 0xFFFF) + (total >> 16)
    view[at] = total >> 8
    view[at + 1] = total & 0xFF
