"""So many look-ups at once, and all end when their source is closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from zignet.policy.source import SourceError

__all__ = ["Turns"]


class Turns:
    """What a look-up does, it does in its `turn`."""

    def __init__(self, most: int) -> None:
        self._free = asyncio.Semaphore(most)
        self._looking: set[asyncio.Task[object]] = set()
        self._closed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for it. Raises `SourceError` where the source is closed, or is closed meanwhile."""
        task = asyncio.current_task()
        if self._closed.is_set() or task is None:
            raise SourceError("it is closed")
        self._looking.add(task)
        self._idle.clear()
        try:
            async with self._free:
                yield
        except asyncio.CancelledError:
            if not self._closed.is_set():
                raise
            task.uncancel()
            raise SourceError("it is closed") from None
        finally:
            self._looking.discard(task)
            if not self._looking:
                self._idle.set()

    async def close(self) -> None:
        """End all that are under way."""
        self._closed.set()
        for task in self._looking:
            task.cancel()
        await self._idle.wait()
