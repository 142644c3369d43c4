"""Strangers whose admission is being asked about: their initiations, kept for a few seconds, and whose turn it is.

A handshake that is answered late is worth more than the next one, 5 s later. So the newest initiation of each stranger
waits here, bounded in number, time and by address: whoever floods from one place waits for itself.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any

__all__ = ["MOST_OF_ONE_SITE", "MOST_WAITING", "WAIT_S", "Caller", "Waiting"]

MOST_WAITING = 1_024  # strangers; each is an initiation of 220 bytes and some objects, 1 KiB together
MOST_OF_ONE_SITE = 32
WAIT_S = 5.0  # then its initiator has begun another handshake (protocol.md §5)

_MAPPED = bytes(10) + b"\xff\xff"  # RFC 4291 §2.5.5.2


def site_of(packed: bytes) -> bytes:
    """Whom an address of 16 bytes (IPv4 mapped) counts for: itself, or its /64 that one site is given."""
    return packed[:16] if packed.startswith(_MAPPED) else packed[:8]


@dataclass(slots=True)
class Caller:
    """An initiation that waits for an answer."""

    message: bytes
    address: Any
    site: bytes
    since: float  # monotonic seconds


class Waiting:
    """The callers by their X25519 key, and their turns: one of each site after the other."""

    __slots__ = ("_by_site", "_callers", "_turns")

    def __init__(self) -> None:
        self._callers: OrderedDict[bytes, Caller] = OrderedDict()  # longest waiting first
        self._by_site: dict[bytes, int] = {}
        self._turns: OrderedDict[bytes, deque[bytes]] = (
            OrderedDict()
        )  # site -> keys that were not asked about

    def __len__(self) -> int:
        return len(self._callers)

    def __contains__(self, x: object) -> bool:
        return x in self._callers

    def add(self, x: bytes, message: bytes, address: Any, packed: bytes, now: float) -> str:
        """Keep an initiation, instead of an older one of the same key. Why not, or "".

        `packed` are the 16 bytes of its address.
        """
        site = site_of(packed)
        old = self._callers.get(x)
        if old is not None and old.site == site:
            old.message, old.address, old.since = message, address, now
            self._callers.move_to_end(x)
            return ""
        if self._by_site.get(site, 0) >= MOST_OF_ONE_SITE:
            return "too many strangers of one address wait to be admitted"
        if old is not None:
            self.take(x)
        elif len(self._callers) >= MOST_WAITING:
            return "too many strangers wait to be admitted"
        self._callers[x] = Caller(message, address, site, now)
        self._by_site[site] = self._by_site.get(site, 0) + 1
        self._turns.setdefault(site, deque()).append(x)
        return ""

    def again(self, x: bytes) -> None:
        """Whoever was asked about it has gone: it has another turn, if it waits still."""
        caller = self._callers.get(x)
        if caller is not None:
            turns = self._turns.setdefault(caller.site, deque())
            if x not in turns:
                turns.append(x)

    def next(self) -> bytes | None:
        """Whose turn it is to be asked about; None: nobody's."""
        if self._turns:
            site, keys = self._turns.popitem(last=False)
            x = keys.popleft()
            if keys:
                self._turns[site] = keys  # behind all others
            return x
        return None

    def take(self, x: bytes) -> Caller | None:
        """Whoever waits under this key waits no more."""
        caller = self._callers.pop(x, None)
        if caller is not None:
            left = self._by_site[caller.site] - 1
            if left:
                self._by_site[caller.site] = left
            else:
                del self._by_site[caller.site]
            turns = self._turns.get(caller.site)
            if turns is not None and x in turns:
                turns.remove(x)
                if not turns:
                    del self._turns[caller.site]
        return caller

    def expire(self, now: float) -> int:
        """Forget who has waited too long; how many."""
        count = 0
        while self._callers:
            x, caller = next(iter(self._callers.items()))
            if caller.since + WAIT_S > now:
                break
            self.take(x)
            count += 1
        return count
