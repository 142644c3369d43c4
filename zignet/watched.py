"""Files beside the configuration that count as they are: read at the start, and again when they change."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from nat.loop import Loop, Timer

__all__ = ["Watched"]

LOOK_S = 2.0  # how late a change may be seen
Stamp = tuple[int, int, int] | None  # inode, size, time of change; None: it is not there

T = TypeVar("T")


class Watched(Generic[T]):
    """Some files of one kind. `content` of one that can't be read is what it was; at first, `nothing`."""

    def __init__(
        self,
        loop: Loop,
        read: Callable[
            [Path], T | None
        ],  # in a thread, but for the first time; None: it can't be, and was told
        nothing: T,
        changed: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._read = read
        self._nothing = nothing
        self._changed = changed
        self.content: dict[Path, T] = {}
        self._stamps: dict[Path, Stamp] = {}
        self._timer: Timer | None = None
        self._reading = False

    def use(self, paths: Iterable[Path]) -> None:
        """From now on these. Reads those that are new."""
        wanted = set(paths)
        for path in [path for path in self.content if path not in wanted]:
            del self.content[path], self._stamps[path]
        for path in wanted - self.content.keys():
            self._stamps[path] = _stamp(path)
            found = self._read(path)
            self.content[path] = self._nothing if found is None else found
        if wanted and self._timer is None:
            self._timer = self._loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        self._timer = self._loop.call_later(LOOK_S, self._look) if self.content else None
        stale = {path: stamp for path, old in self._stamps.items() if (stamp := _stamp(path)) != old}
        if stale and not self._reading:
            self._reading = True
            threading.Thread(target=self._read_again, args=(stale,), daemon=True).start()

    def _read_again(self, stale: dict[Path, Stamp]) -> None:
        found = {path: self._read(path) for path in stale}
        self._loop.from_thread(lambda: self._replace(stale, found))

    def _replace(self, stamps: dict[Path, Stamp], found: dict[Path, T | None]) -> None:
        self._reading = False
        for path, stamp in stamps.items():
            if path in self.content:
                self._stamps[path] = stamp
                content = found[path]
                if content is not None:
                    self.content[path] = content
        self._changed()


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
