"""Answers of the packet process, kept for a moment: however often one asks here, it is asked rarely there.

An answer is kept for half a second, or for 20 times as long as it took, up to two seconds, so that questions of one
kind hardly take more than a twentieth of the packet process's time. Whoever asks for the same meanwhile waits for the
same answer. Questions that are all different have a pace: so many a second, where each costs little, else a share of
the time.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Allowance", "Asked", "Fresh", "Pace", "Share"]

KEEP_S, LONGEST_S = 0.5, 2.0  # it may have taken long only because the machine is busy
SHARE = 20  # times as long as an answer took


class Asked(Protocol):
    """The packet process (`zignet.admin.node.NodeClient`)."""

    async def ask(self, request: dict[str, Any], timeout_s: float = ...) -> list[dict[str, Any]]:
        """One question, and the lines of its answer. Raises `ControlError`."""
        ...


def kept_s(took_s: float) -> float:
    """For how long an answer is kept."""
    return min(max(KEEP_S, SHARE * took_s), LONGEST_S)


class Pace(Protocol):
    """How soon the next question may be asked. Pure."""

    at_once: int  # questions

    def wait_s(self, now: float) -> float:
        """For how long the next one has to wait."""
        ...

    def took(self, now: float, seconds: float) -> None:
        """An answer has come, after so long."""
        ...


class Allowance:
    """A `Pace`: so many a second, and some at once."""

    at_once = 64

    def __init__(self, per_s: float = 400.0, burst: float = 100.0) -> None:
        self._per_s = per_s
        self._burst = burst
        self._spent_until = 0.0  # when all that was promised will have been earned

    def wait_s(self, now: float) -> float:
        """See `Pace`."""
        self._spent_until = max(self._spent_until, now) + 1 / self._per_s
        return max(0.0, self._spent_until - now - self._burst / self._per_s)

    def took(self, now: float, seconds: float) -> None:
        """See `Pace`."""


class Share:
    """A `Pace`: after an answer as many times as long a rest as was worked on it."""

    at_once = 1

    def __init__(self, rest: float = 4.0) -> None:
        self._rest = rest
        self._until = 0.0

    def wait_s(self, now: float) -> float:
        """See `Pace`."""
        return max(0.0, self._until - now)

    def took(self, now: float, seconds: float) -> None:
        """See `Pace`."""
        self._until = now + min(self._rest * seconds, LONGEST_S)


class Fresh:
    """A `Asked` that remembers for a moment."""

    def __init__(self, node: Asked, room: int, pace: Pace, clock: Callable[[], float] | None = None) -> None:
        """`room`: how many answers are kept; the eldest goes first."""
        self._node = node
        self._room = room
        self._pace = pace
        self._turns = asyncio.Semaphore(pace.at_once)
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._kept: OrderedDict[str, tuple[float, list[dict[str, Any]]]] = OrderedDict()  # until when
        self._asking: dict[str, asyncio.Task[list[dict[str, Any]]]] = {}

    async def ask(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """The lines of an answer, not older than the module says. Not to be changed. Raises `ControlError`."""
        key = json.dumps(request, sort_keys=True)
        kept = self._kept.get(key)
        if kept is not None and self._clock() < kept[0]:
            return kept[1]
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._renew(key, request))
            task.add_done_callback(lambda task: self._asked(key, task))
        return await asyncio.shield(task)  # others wait for it too

    async def one(self, request: dict[str, Any], key: str) -> Any:
        """A question whose answer is one value."""
        for part in await self.ask(request):
            if key in part:
                return part[key]
        raise LookupError(f"the packet process answers {request} without {key}")

    async def _renew(self, key: str, request: dict[str, Any]) -> list[dict[str, Any]]:
        async with self._turns:
            if wait_s := self._pace.wait_s(self._clock()):
                await asyncio.sleep(wait_s)
            begun = self._clock()
            try:
                lines = await self._node.ask(request)
            finally:
                now = self._clock()
                self._pace.took(now, now - begun)
        self._kept[key] = now + kept_s(now - begun), lines
        self._kept.move_to_end(key)
        if len(self._kept) > self._room:
            self._kept.popitem(last=False)
        return lines

    def _asked(self, key: str, task: asyncio.Task[list[dict[str, Any]]]) -> None:
        self._asking.pop(key, None)
        if not task.cancelled():
            task.exception()  # told to whoever waits; perhaps nobody does any more
