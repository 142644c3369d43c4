"""The seam between the rules and whoever knows about a key: a file, a script, a database, a chain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from zignet.identity import PublicKey

__all__ = ["Finding", "Source", "SourceError"]


class SourceError(Exception):
    """A source could not answer: neither yes nor no. The text is one clause for people and holds no secret."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a source says about a key."""

    matches: bool
    reason: str  # one clause, e.g. "line 12"; who said it is the label
    valid_s: float | None = None  # for how long it stands by that, in seconds; None: until something changes


class Source(Protocol):
    """Asked about keys, one call each; whoever asks remembers the answers."""

    label: str  # for people, e.g. "file /etc/zignet/allowed.txt"; holds no secret

    async def look(self, key: PublicKey) -> Finding:
        """Whether the key matches. Bounded in time. Raises `SourceError`."""
        ...

    def watch(self, changed: Callable[[], None]) -> None:
        """From now on call `changed`, in the running asyncio loop, whenever answers may have changed."""
        ...

    async def close(self) -> None:
        """Give up whatever is held; look-ups that are under way end with `SourceError`."""
        ...
