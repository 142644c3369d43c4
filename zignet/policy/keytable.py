"""A set of a million keys in 43 MiB: a look-up is one or two probes, whatever the size.

A key is found by the y coordinate of its Ed25519 form. A key and its negation differ in the sign alone, and share the
X25519 form, so they are one key here as everywhere; and a y that is no point of the curve is stored as any other: no
key that is good has it, so it admits nobody, and no curve arithmetic is done for a line of a file.

    index    2^n slots of 4 bytes, at most half of them in use: 1 + number of the entry, or 0
    words    32 bytes an entry
    lines    4 bytes an entry: where it stands in its file

The slot is the first word times a random number: who has a say in the file can't make its keys meet in one place.
"""

from __future__ import annotations

import secrets
from array import array
from collections.abc import Sequence

import cython

__all__ = ["KeyTable"]

_SIZE = 32  # bytes of a key
_WITHOUT_SIGN = bytes(range(128)) * 2
_WORD = 0xFFFFFFFFFFFFFFFF
_C_WORD = cython.declare(cython.ulonglong, 0xFFFFFFFFFFFFFFFF)


class KeyTable:
    """Made for at most `most` keys. The first line of a key counts."""

    __slots__ = ("_count", "_index", "_lines", "_salt", "_shift", "_words")

    def __init__(self, most: int) -> None:
        bits = max((2 * most - 1).bit_length(), 4)
        self._index = array("I", bytes(4 << bits))
        self._words = array("Q", bytes(_SIZE * most))
        self._lines = array("I", bytes(4 * most))
        self._shift = 64 - bits
        self._salt = secrets.randbits(64) | 1
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, keys: bytes, lines: Sequence[int]) -> None:
        """Take in Ed25519 forms, one behind the other, each with the number of its line."""
        count = len(lines)
        if len(keys) != _SIZE * count or self._count + count > len(self._lines):
            raise ValueError("there is a line for each key, and no more keys than the table was made for")
        bare = bytearray(keys)
        bare[_SIZE - 1 :: _SIZE] = bare[_SIZE - 1 :: _SIZE].translate(_WITHOUT_SIGN)
        self._count += _insert(
            self._index,
            self._words,
            self._lines,
            memoryview(bare).cast("Q"),
            array("I", lines),
            self._count,
            self._salt,
            self._shift,
        )

    def line_of(self, ed: bytes) -> int:
        """The line of a key by its Ed25519 form, from 1; 0 if it is not there."""
        bare = memoryview(ed[: _SIZE - 1] + bytes([ed[_SIZE - 1] & 0x7F])).cast("Q").tolist()
        index, words = self._index, self._words
        slot = (bare[0] * self._salt & _WORD) >> self._shift
        while entry := index[slot]:
            if words[4 * entry - 4 : 4 * entry].tolist() == bare:
                return self._lines[entry - 1]
            slot = slot + 1 if slot + 1 < len(index) else 0
        return 0


@cython.cfunc
@cython.boundscheck(False)
@cython.wraparound(False)
def _insert(
    index: cython.uint[::1],
    words: cython.ulonglong[::1],
    lines: cython.uint[::1],
    keys: cython.ulonglong[::1],
    of_keys: cython.uint[::1],  # their lines
    first: cython.Py_ssize_t,  # the number of the next entry
    salt: cython.ulonglong,
    shift: cython.int,
) -> cython.Py_ssize_t:
    """Add keys that there is room for; returns how many were not there yet."""
    mask: cython.Py_ssize_t = len(index) - 1
    entry: cython.Py_ssize_t = first
    at: cython.Py_ssize_t
    slot: cython.Py_ssize_t
    there: cython.Py_ssize_t
    for at in range(len(of_keys)):
        slot = ((keys[4 * at] * salt) & _C_WORD) >> shift
        there = index[slot]
        while there != 0:
            there = 4 * there - 4
            if (
                words[there] == keys[4 * at]
                and words[there + 1] == keys[4 * at + 1]
                and words[there + 2] == keys[4 * at + 2]
                and words[there + 3] == keys[4 * at + 3]
            ):
                break
            slot = (slot + 1) & mask
            there = index[slot]
        else:
            words[4 * entry] = keys[4 * at]
            words[4 * entry + 1] = keys[4 * at + 1]
            words[4 * entry + 2] = keys[4 * at + 2]
            words[4 * entry + 3] = keys[4 * at + 3]
            lines[entry] = of_keys[at]
            entry += 1
            index[slot] = entry
    return entry - first
