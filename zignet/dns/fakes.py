"""Fake addresses: a name (or a name and its exit) has a number, and with it an address of each family. Pure.

    number_of(name)    the number, a new one if need be; None where the pool is full
    lookup(address)    (name, exit), or None for an address that stands for nothing
    use(address)       the same for a flow: the mapping is proven, and goes after those that no flow has ever used

A number is given to another name only when the pool is full, when the old one has rested for `min_age_s`, and when no
live flow has the address. Least recently used go first, and those without a flow before the others: a flood of
random names pushes out its own. What the journal must know it is told first, so that no address means another name
after a `kill -9`: numbers are reserved ahead, and given back before they are given again.

Memory for each name: its record in a `NameTable`, and 9 bytes of arrays.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import Protocol

from zignet.dns.name_table import NameTable

__all__ = ["FIRST", "MIN_AGE_S", "Fakes", "Journal", "Row"]

UNPROVEN, PROVEN = 0, 1  # heads of the two rings, in numbers that no address has
FIRST = 2
RESERVED = 1024  # numbers at a time, or a 64th of the pool
RECYCLED = 64  # at a time
LOOKED_AT = 1024  # mappings, in search of them
COARSE_S = 16  # a mapping moves to the end of its ring no more often than that
MIN_AGE_S = 600  # longer than applications keep an address whose TTL is 1
AGAIN_S = 1.0  # after a search in vain
NO_NAME = ("", " ")  # as the beginning of a key

Row = tuple[int, str, int, int]  # number, key, wall seconds of the last use, whether proven


class Journal(Protocol):
    """What survives the process. The first two have written when they return."""

    def reserve(self, ceiling: int) -> None:
        """Numbers below this may be given from now on."""
        ...

    def release(self, numbers: Collection[int]) -> None:
        """These mean nothing any more."""
        ...

    def assigned(self, number: int, key: str, wall: int) -> None:
        """A number has a meaning; to be written soon."""
        ...


class Fakes:
    """The map. `live` gives the target addresses of live flows, and is asked when numbers have to be recycled."""

    def __init__(
        self,
        pool4: IPv4Network,
        pool6: IPv6Network,
        journal: Journal,
        wall: Callable[[], float],  # seconds since 1970
        *,
        live: Callable[[], Collection[bytes]] = frozenset,
        min_age_s: int = MIN_AGE_S,
    ) -> None:
        self.pool4, self.pool6 = pool4, pool6
        self._base4 = int(pool4.network_address)
        self._base6 = int(pool6.network_address)
        self.size = min(pool4.num_addresses, pool6.num_addresses) - 1  # not the broadcast address
        self._journal = journal
        self._wall = wall
        self.live = live
        self._min_age_s = min_age_s
        self._table = NameTable(self.size)  # its stamps: wall seconds of the last use
        self._nameless = 0  # numbers that are taken, but perhaps mean nothing: their keys begin with a blank
        self._before = array("I", (UNPROVEN, PROVEN))
        self._after = array("I", (UNPROVEN, PROVEN))
        self._proven = bytearray(FIRST)
        self._ceiling = FIRST
        self._ready: list[int] = []  # given back, and not given again yet
        self._search_again = 0.0
        self._touched: set[int] = set()
        self.full = 0  # names that got no number

    def __len__(self) -> int:
        return len(self._table) - self._nameless

    @property
    def next(self) -> int:
        """The lowest number that was never given."""
        return len(self._proven)

    def restore(self, rows: Iterable[Row], ceiling: int) -> None:
        """What the journal knows, least recently used first. Call it once, before anything else."""
        now = int(self._wall())
        ceiling = max(FIRST, min(ceiling, self.size))
        self._grow(ceiling)
        self._ceiling = ceiling
        table = self._table
        for number, key, used, proven in rows:
            if not FIRST <= number < ceiling or key[:1] in NO_NAME or table.find(key) or table.key(number):
                continue
            table.put(number, key, min(max(used, 0), now))
            self._proven[number] = 1 if proven else 0
            self._append(number, PROVEN if proven else UNPROVEN)
        for number in range(FIRST, ceiling):
            if not table.key(number):  # reserved, and perhaps given: it rests like one that was used just now
                table.put(number, f" {number}", now)
                self._nameless += 1
                self._append(number, UNPROVEN)

    # --- names to numbers

    def number_of(self, name: str, exit: str = "") -> int | None:  # noqa: A002 -- the word for it
        """The number of a name, or of a name by one exit; None if there is none left."""
        key = f"{name} {exit}" if exit else name
        number = self._table.find(key)
        if not number:
            return self._new(key)
        now = int(self._wall())
        if now - self._table.found >= COARSE_S:
            self._touch(number, now)
        return number

    def peek(self, name: str) -> tuple[int, bool] | None:
        """The number that a name has (True), or would be given now (False); None if there may be none left."""
        number = self._table.find(name)
        if number:
            return number, True
        if self._ready:
            return self._ready[-1], False
        return (self.next, False) if self.next < self.size else None

    def address4(self, number: int) -> bytes:
        """4 bytes."""
        return (self._base4 + number).to_bytes(4, "big")

    def address6(self, number: int) -> bytes:
        """16 bytes."""
        return (self._base6 + number).to_bytes(16, "big")

    # --- addresses to names

    def number_at(self, address: bytes) -> int:
        """The number that an address has by its place in its pool, or -1 outside of both."""
        number = int.from_bytes(address, "big") - (self._base4 if len(address) == 4 else self._base6)
        pool = self.pool4 if len(address) == 4 else self.pool6
        return number if 0 <= number < pool.num_addresses else -1

    def lookup(self, address: bytes) -> tuple[str, str] | None:
        """(name, exit), exit perhaps "". None: the address is no fake one, or means nothing (any more)."""
        number = self.number_at(address)
        if not FIRST <= number < self.next:
            return None
        name, _, exit_ = self._table.key(number).partition(" ")
        return (name, exit_) if name else None

    def use(self, address: bytes) -> tuple[str, str] | None:
        """As `lookup`, for a new flow."""
        found = self.lookup(address)
        if found is not None:
            number = self.number_at(address)
            now = int(self._wall())
            if not self._proven[number] or now - self._table.stamp(number) >= COARSE_S:
                self._proven[number] = 1
                self._touch(number, now)
        return found

    # --- the journal's

    def touched(self, most: int) -> list[tuple[int, int, int]]:
        """(wall, proven, number) of mappings that were used since they were last asked for here, some of them."""
        table = self._table
        some = [self._touched.pop() for _ in range(min(most, len(self._touched)))]
        return [
            (table.stamp(number), self._proven[number], number)
            for number in some
            if table.key(number)[:1] not in NO_NAME
        ]

    # --- inside

    def _new(self, key: str) -> int | None:
        number = self._free()
        if number is None:
            self.full += 1
            return None
        now = int(self._wall())
        self._table.put(number, key, now)
        self._proven[number] = 0
        self._append(number, UNPROVEN)
        self._journal.assigned(number, key, now)
        return number

    def _free(self) -> int | None:
        if not self._ready and self.next < self.size:
            number = self.next
            if number >= self._ceiling:
                self._ceiling = min(number + min(RESERVED, 1 + self.size // 64), self.size)
                self._journal.reserve(self._ceiling)
            self._grow(number + 1)
            return number
        if not self._ready:
            self._recycle(self._wall())
        return self._ready.pop() if self._ready else None

    def _grow(self, size: int) -> None:
        more = size - self.next
        for each in (self._before, self._after):
            each.extend(array("I", bytes(4 * more)))
        self._proven.extend(bytes(more))

    def _recycle(self, now: float) -> None:
        """Give numbers back, if any have rested long enough."""
        if now < self._search_again:
            return
        live = self.live()
        found: list[int] = []
        for ring in (UNPROVEN, PROVEN):
            number = self._after[ring]
            for _ in range(LOOKED_AT):
                if (
                    number == ring
                    or now - self._table.stamp(number) < self._min_age_s
                    or len(found) == RECYCLED
                ):
                    break
                following = self._after[number]
                if self.address4(number) in live or self.address6(number) in live:
                    self._proven[number] = 1
                    self._touch(number, int(now))
                else:
                    found.append(number)
                number = following
            if found:
                break
        if not found:
            self._search_again = now + AGAIN_S
            return
        self._journal.release(found)
        for number in found:
            self._unlink(number)
            self._nameless -= self._table.key(number)[0] == " "
            self._table.remove(number)
        self._ready = found[::-1]

    def _touch(self, number: int, now: int) -> None:
        self._table.set_stamp(number, now)
        self._unlink(number)
        self._append(number, PROVEN if self._proven[number] else UNPROVEN)
        self._touched.add(number)

    def _append(self, number: int, ring: int) -> None:
        last = self._before[ring]
        self._after[last] = number
        self._before[number] = last
        self._after[number] = ring
        self._before[ring] = number

    def _unlink(self, number: int) -> None:
        before, after = self._before[number], self._after[number]
        self._after[before] = after
        self._before[after] = before
