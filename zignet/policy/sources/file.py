"""A file of keys, looked at every second: what is in it now is what counts.

A file that changed is read once it has been as it is for a second, so one that is being written is not read by halves;
better is to write another and rename it. One that is gone is not a list of nobody: it can't answer.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from zignet.config import FilePolicy
from zignet.identity import PublicKey
from zignet.policy.keyfile import KeyFile, read_keys
from zignet.policy.source import Finding, SourceError

__all__ = ["FileSource"]

POLL_S = 1.0
_TRIES = 3  # to read a file that is being written
_Signature = tuple[int, ...]  # of a file as it is; of one that is not, the error's number


class FileSource:
    """See `Source`."""

    def __init__(self, policy: FilePolicy, recheck_s: float = 0.0) -> None:
        self.label = f"file {policy.path}"
        self._path = policy.path
        self._keys: KeyFile | None = None
        self._error: str | None = None
        self._signature: _Signature = ()
        self._reading = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines that are no keys."""
        keys = self._keys
        if keys is None or not keys.bad:
            return ()
        more = keys.bad - len(keys.problems)
        return (*keys.problems, *((f"and {more} more lines that are no keys",) if more else ()))

    async def look(self, key: PublicKey) -> Finding:
        """See `Source`."""
        if not self._signature:
            async with self._reading:
                if not self._signature:
                    await self._read()
        if self._closed:
            raise SourceError("it is closed")
        if self._keys is None:
            raise SourceError(self._error or "it was not read")
        line = self._keys.line_of(key)
        if not line:
            count = len(self._keys.table)
            return Finding(False, f"not among its {count:,} key{'' if count == 1 else 's'}")
        name = self._keys.names.get(line)
        return Finding(True, f"line {line}" + (f" ({name})" if name else ""))

    def watch(self, changed: Callable[[], None]) -> None:
        """See `Source`."""
        self._watching = asyncio.get_running_loop().create_task(self._watch(changed))

    async def close(self) -> None:
        """See `Source`."""
        self._closed = True
        self._keys = None
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def _watch(self, changed: Callable[[], None]) -> None:
        before: _Signature = ()
        while True:
            await asyncio.sleep(POLL_S)
            if not self._signature:  # nobody has asked yet
                continue
            seen = await asyncio.to_thread(_signature_of, self._path)
            if seen not in (self._signature, before):
                before = seen  # once more, to see whether it stays
            elif seen != self._signature:
                async with self._reading:
                    await self._read()
                changed()

    async def _read(self) -> None:
        self._signature, found = await asyncio.to_thread(_read, self._path)
        self._keys = found if isinstance(found, KeyFile) else None
        self._error = found if isinstance(found, str) else None


def _read(path: Path) -> tuple[_Signature, KeyFile | str]:
    """The keys, or why there are none, and of which state of the file that is."""
    found: KeyFile | str = ""
    before: _Signature = ()
    for _ in range(_TRIES):
        before = _signature_of(path)
        try:
            found = read_keys(path)
        except ValueError as error:
            found = str(error)
        if _signature_of(path) == before:
            break
    return before, found  # if it never rested, the next look at it sees another state


def _signature_of(path: Path) -> _Signature:
    try:
        found = os.stat(path)
    except OSError as error:
        return (error.errno or 0,)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode
