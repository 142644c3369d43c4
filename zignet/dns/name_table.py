# cython: boundscheck=False, wraparound=False, initializedcheck=False
"""Keys to numbers and numbers to keys: one look-up touches one line of memory. Pure.

    table    records of 64 bytes, open addressing with linear probing: hash, number, stamp, length of the key, the key
    places   where the record of a number is
    long     keys that do not fit into a record

A million keys are more than any cache holds, and each line that has to be fetched takes longer than all the rest: so
what belongs to a key lies beside it. Removing shifts what was behind back over the gap: no tombstones. When three of
four places are taken, a table of twice the size takes over. Its memory costs nothing before it is touched, and each
further key moves a few records over, so nobody waits for all of them; while that lasts, a key is in one of the two.

`boundscheck` is off because a probe is masked to its table, and a number is compared with the largest.
"""

from __future__ import annotations

import mmap
from contextlib import suppress

import cython

if cython.compiled:
    from cython.cimports.cpython.unicode import PyUnicode_AsUTF8AndSize, PyUnicode_DecodeUTF8
    from cython.cimports.libc.string import memcmp, memcpy

__all__ = ["INLINE", "NameTable"]

INLINE = 51  # bytes of a key in its record
WORDS = cython.declare(cython.size_t, 16)  # of 32 bits: a record
HASH = cython.declare(cython.size_t, 0)  # in words
NUMBER = cython.declare(cython.size_t, 1)  # 0: nothing is here
STAMP = cython.declare(cython.size_t, 2)
RECORD = cython.declare(cython.size_t, 64)  # bytes
LENGTH = cython.declare(cython.size_t, 12)  # in bytes
TEXT = cython.declare(cython.size_t, 13)
LONG = cython.declare(cython.int, 255)  # as a length
MOVED_ON = cython.declare(cython.uint, 0xFFFFFFFF)  # as a number in the old table
SECOND = cython.declare(cython.uint, 0x80000000)  # in a place: of the two tables, the one whose turn is odd
SMALLEST = 256  # records
MOVED = 16  # records that each new key moves
HUGE = 8 << 20  # bytes from which huge pages are asked for


def zeros(size: int) -> memoryview:
    """Bytes that cost nothing before they are touched; many of them in huge pages, for the TLB's sake."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
    memory = mmap.mmap(-1, size, flags=flags)
    if size >= HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)


@cython.final
@cython.cclass
class Slots:
    """The records of one table."""

    words: cython.uint[::1]
    text: cython.uchar[::1]
    mask = cython.declare(cython.size_t)
    size = cython.declare(cython.size_t)
    turn = cython.declare(cython.uint)  # SECOND or 0

    def __init__(self, size: int, turn: int) -> None:
        memory = zeros(64 * size)
        self.text = memory
        self.words = memory.cast("I")
        self.size = size
        self.mask = size - 1
        self.turn = turn

    @cython.cfunc
    def find(self, code: cython.uint, key: str, long: dict) -> cython.ssize_t:  # type: ignore[type-arg]
        """Where a key is; -1 where it is not."""
        at: cython.size_t = code & self.mask
        while self.words[at * WORDS + NUMBER]:
            if self.words[at * WORDS + HASH] == code and self.holds(at, key, long):
                return at
            at = (at + 1) & self.mask
        return -1

    @cython.cfunc
    def holds(self, at: cython.size_t, key: str, long: dict) -> cython.bint:  # type: ignore[type-arg]
        """Whether a record is of this key."""
        number: cython.uint = self.words[at * WORDS + NUMBER]
        if number == MOVED_ON:
            return False
        start: cython.size_t = at * RECORD
        size: cython.Py_ssize_t = self.text[start + LENGTH]
        if size == LONG:
            return long[number] == key
        start += TEXT
        if cython.compiled:
            given: cython.Py_ssize_t = 0
            text = PyUnicode_AsUTF8AndSize(key, cython.address(given))
            return given == size and memcmp(text, cython.address(self.text[start]), size) == 0
        return self.text[start : start + size] == key.encode()

    @cython.cfunc
    def free(self, code: cython.uint) -> cython.size_t:
        """Where a key with this hash may go."""
        at: cython.size_t = code & self.mask
        while self.words[at * WORDS + NUMBER]:
            at = (at + 1) & self.mask
        return at

    @cython.cfunc
    def copy(self, at: cython.size_t, other: Slots, start: cython.size_t) -> cython.void:
        """Take a record of another table, or of this one."""
        if cython.compiled:
            memcpy(cython.address(self.text[at * RECORD]), cython.address(other.text[start * RECORD]), RECORD)
        else:
            self.text[at * RECORD : (at + 1) * RECORD] = other.text[start * RECORD : (start + 1) * RECORD]


@cython.final
@cython.cclass
class NameTable:
    """Both ways. Numbers begin at 1, and are best without gaps: memory is touched as far as they go."""

    slots: Slots
    old: Slots | None
    places: cython.uint[::1]
    moved: cython.size_t  # of the old table
    count: cython.size_t
    most: cython.Py_ssize_t
    long: dict[int, str]
    found = cython.declare(cython.uint, visibility="readonly")  # the stamp of the key that `find` has found

    def __init__(self, most: int) -> None:
        """`most`: the largest number that there may be, less than 2^31."""
        self.slots = Slots(SMALLEST, 0)
        self.old = None
        self.moved = 0
        self.count = 0
        self.most = most
        self.places = zeros(4 * (most + 1)).cast("I")
        self.long = {}
        self.found = 0

    def __len__(self) -> int:
        return self.count

    def find(self, key: str) -> int:
        """The number of a key, whose stamp is `found` from then on; 0 where it has none."""
        code: cython.uint = code_of(key)
        slots: Slots = self.slots
        at: cython.Py_ssize_t = slots.find(code, key, self.long)
        if at < 0:
            if self.old is None:
                return 0
            slots = self.old
            at = slots.find(code, key, self.long)
            if at < 0:
                return 0
        start: cython.size_t = at * WORDS
        self.found = slots.words[start + STAMP]
        return slots.words[start + NUMBER]

    def key(self, number: cython.Py_ssize_t) -> str:
        """The key of a number; "" where it has none."""
        if not 1 <= number <= self.most or not self.places[number]:
            return ""
        slots: Slots = self._table(number)
        start: cython.size_t = self._at(number) * RECORD
        size: cython.size_t = slots.text[start + LENGTH]
        if size == LONG:
            return self.long[number]
        start += TEXT
        if cython.compiled:
            return PyUnicode_DecodeUTF8(
                cython.cast(cython.p_char, cython.address(slots.text[start])), size, cython.NULL
            )
        return str(slots.text[start : start + size], "utf-8")

    def put(self, number: cython.Py_ssize_t, key: str, stamp: cython.uint) -> None:
        """Give a key that has no number one that has no key. Raises ValueError for what neither can be."""
        if not key or not 1 <= number <= self.most or self.places[number]:
            raise ValueError(f"{number} can't be the number of {key[:64]!r}")
        if (self.count + 1) * 4 > self.slots.size * 3:
            self._grow()
        slots: Slots = self.slots
        code: cython.uint = code_of(key)
        at: cython.size_t = slots.free(code)
        text: bytes = key.encode()
        size: cython.size_t = len(text)
        start: cython.size_t = at * RECORD
        if size > INLINE:
            slots.text[start + LENGTH] = LONG
            self.long[number] = key
        else:
            slots.text[start + LENGTH] = size
            offset: cython.size_t
            for offset in range(size):
                slots.text[start + TEXT + offset] = text[offset]
        slots.words[at * WORDS + HASH] = code
        slots.words[at * WORDS + NUMBER] = number
        slots.words[at * WORDS + STAMP] = stamp
        self._place(number, slots, at)
        self.count += 1
        if self.old is not None:
            self._move(MOVED)

    def remove(self, number: cython.Py_ssize_t) -> None:
        """Take a number's key from it, if it has one."""
        if not 1 <= number <= self.most or not self.places[number]:
            return
        slots: Slots = self._table(number)
        at: cython.size_t = self._at(number)
        if slots is self.slots:
            self._close_gap(at)
        else:
            slots.words[at * WORDS + NUMBER] = MOVED_ON  # what lies behind is still found
        self.places[number] = 0
        self.long.pop(number, None)
        self.count -= 1

    def stamp(self, number: cython.Py_ssize_t) -> int:
        """What was noted with a number's key: 32 bits. Raises KeyError where it has none."""
        if not 1 <= number <= self.most or not self.places[number]:
            raise KeyError(number)
        slots: Slots = self._table(number)
        return slots.words[self._at(number) * WORDS + STAMP]

    def set_stamp(self, number: cython.Py_ssize_t, stamp: cython.uint) -> None:
        """Note something else. Raises KeyError where the number has no key."""
        if not 1 <= number <= self.most or not self.places[number]:
            raise KeyError(number)
        slots: Slots = self._table(number)
        slots.words[self._at(number) * WORDS + STAMP] = stamp

    # --- inside

    @cython.cfunc
    def _table(self, number: cython.size_t) -> Slots:
        slots = self.slots
        if (self.places[number] & SECOND) == slots.turn:
            return slots
        assert self.old is not None
        return self.old

    @cython.cfunc
    def _at(self, number: cython.size_t) -> cython.size_t:
        return (self.places[number] & ~SECOND) - 1

    @cython.cfunc
    def _place(self, number: cython.size_t, slots: Slots, at: cython.size_t) -> cython.void:
        self.places[number] = slots.turn | (at + 1)

    @cython.cfunc
    def _close_gap(self, gap: cython.size_t) -> cython.void:
        """Whatever was pushed on over this record comes back (Knuth, The Art of Computer Programming 6.4, R)."""
        slots: Slots = self.slots
        at: cython.size_t = gap
        number: cython.size_t
        while True:
            at = (at + 1) & slots.mask
            number = slots.words[at * WORDS + NUMBER]
            if number == 0:
                break
            if ((at - slots.words[at * WORDS + HASH]) & slots.mask) >= ((at - gap) & slots.mask):
                slots.copy(gap, slots, at)
                self._place(number, slots, gap)
                gap = at
        slots.words[gap * WORDS + NUMBER] = 0

    @cython.cfunc
    def _grow(self) -> cython.void:
        if self.old is not None:
            self._move(self.old.size)
        self.old = self.slots
        self.slots = Slots(2 * self.old.size, self.old.turn ^ SECOND)
        self.moved = 0

    @cython.cfunc
    def _move(self, most: cython.size_t) -> cython.void:
        """Some of the old records into the table; they leave a sign, so that what lies behind is still found."""
        assert self.old is not None
        old: Slots = self.old
        slots: Slots = self.slots
        end: cython.size_t = min(self.moved + most, old.size)
        number: cython.uint
        at: cython.size_t
        while self.moved < end:
            number = old.words[self.moved * WORDS + NUMBER]
            if number not in (0, MOVED_ON):
                at = slots.free(old.words[self.moved * WORDS + HASH])
                slots.copy(at, old, self.moved)
                self._place(number, slots, at)
                old.words[self.moved * WORDS + NUMBER] = MOVED_ON
            self.moved += 1
        if end == old.size:
            self.old = None


@cython.cfunc
def code_of(key: str) -> cython.uint:
    """32 bits that nobody outside can foresee (PEP 456)."""
    return hash(key) & 0xFFFFFFFF
