"""Files of keys that the configuration names in its lists of members: read at the start, and again when they change."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Container, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from zignet.identity import PublicKey

if TYPE_CHECKING:
    from nat.loop import Loop, Timer

__all__ = ["KeyFiles"]

log = logging.getLogger("zignet")

LOOK_S = 2.0  # how late a change may be seen
Stamp = tuple[int, int, int] | None  # inode, size, time of change; None: it is not there

NOBODY: Container[PublicKey] = frozenset()


class KeyFiles:
    """The files in use. A file that can't be read has the content that it had; at first, nobody."""

    def __init__(self, loop: Loop, changed: Callable[[], None]) -> None:
        self._loop = loop
        self._changed = changed
        self.tables: dict[Path, Container[PublicKey]] = {}
        self._stamps: dict[Path, Stamp] = {}
        self._timer: Timer | None = None
        self._reading = False

    def use(self, paths: Iterable[Path]) -> None:
        """From now on these. Reads those that are new."""
        wanted = set(paths)
        for path in [path for path in self.tables if path not in wanted]:
            del self.tables[path], self._stamps[path]
        for path in wanted - self.tables.keys():
            self._stamps[path] = _stamp(path)
            self.tables[path] = self._read(path) or NOBODY
        if wanted and self._timer is None:
            self._timer = self._loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        self._timer = self._loop.call_later(LOOK_S, self._look) if self.tables else None
        stale = {path: stamp for path, old in self._stamps.items() if (stamp := _stamp(path)) != old}
        if stale and not self._reading:
            self._reading = True
            threading.Thread(target=self._read_again, args=(stale,), daemon=True).start()

    def _read_again(self, stale: dict[Path, Stamp]) -> None:
        """In a thread."""
        found = {path: self._read(path) for path in stale}
        self._loop.from_thread(lambda: self._replace(stale, found))

    def _replace(self, stamps: dict[Path, Stamp], found: dict[Path, Container[PublicKey] | None]) -> None:
        self._reading = False
        for path, stamp in stamps.items():
            if path in self.tables:
                self._stamps[path] = stamp
                self.tables[path] = found[path] or self.tables[path]
        self._changed()

    def _read(self, path: Path) -> Container[PublicKey] | None:
        from zignet.policy.keyfile import read_keys

        try:
            found = read_keys(path)
        except ValueError as error:
            log.error("%s; what was read before stays in force", error)
            return None
        for problem in found.problems:
            log.warning("%s: %s", path, problem)
        return found


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
