"""Keys and sources for tests of policies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from zignet.identity import PublicKey, SecretKey
from zignet.policy import Finding, SourceError

__all__ = ["KEYS", "Clock", "Table", "fake_key", "negation", "turns"]

KEYS = [SecretKey(number.to_bytes(32, "big")).public for number in range(1, 8)]


def negation(key: PublicKey) -> PublicKey:
    return PublicKey(key.x, not key.odd)


def fake_key(number: int) -> PublicKey:
    """One of very many, nobody's: where the curve is not looked at."""
    return PublicKey(number.to_bytes(32, "little"), False)


class Clock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


class Table:
    """A source by hand: what it says, whether it hangs, and how often it was asked."""

    def __init__(self, label: str = "table", valid_s: float | None = 60.0) -> None:
        self.label = label
        self.valid_s = valid_s
        self.members: set[PublicKey] = set()
        self.error: Exception | None = None
        self.asked: list[PublicKey] = []
        self.gate: asyncio.Event | None = None  # while it is not set, look-ups hang
        self.under_way = 0
        self.most_under_way = 0
        self.change: Callable[[], None] = lambda: None
        self.closed = False

    async def look(self, key: PublicKey) -> Finding:
        self.asked.append(key)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if self.gate is not None:
                await self.gate.wait()
        finally:
            self.under_way -= 1
        if self.error is not None:
            raise self.error
        matches = key in self.members
        return Finding(matches, "a member" if matches else "no member", self.valid_s)

    def fails(self, why: str) -> None:
        self.error = SourceError(why)

    def watch(self, changed: Callable[[], None]) -> None:
        self.change = changed

    async def close(self) -> None:
        self.closed = True


async def turns(count: int = 50) -> None:
    """Let everything that can go on go on."""
    for _ in range(count):
        await asyncio.sleep(0)
