"""The timestamps of initiations: never repeated, never lower (protocol.md §3)."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["AHEAD_US", "Stamps"]

AHEAD_US = 10_000_000  # how far beyond a stamp the next reservation reaches


class Stamps:
    """Gives the stamps of one identity on one device.

    `reserved` is the last value that `persist` was given, 0 at first: anything up to it may have been used. So
    `persist` writes once in ten seconds of handshakes, and not for each, and must have written when it returns.
    """

    __slots__ = ("_last", "_persist", "_reserved")

    def __init__(self, reserved: int, persist: Callable[[int], None]) -> None:
        self._last = self._reserved = reserved
        self._persist = persist

    def next(self, wall_us: int) -> int:
        """The stamp for an initiation made now, `wall_us` being the wall clock in µs since 1970.

        What `persist` raises goes to the caller; no stamp was used then.
        """
        stamp = max(wall_us, self._last + 1)
        if stamp > self._reserved:
            ceiling = stamp + AHEAD_US
            self._persist(ceiling)
            self._reserved = ceiling
        self._last = stamp
        return stamp
