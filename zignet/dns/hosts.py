"""The names in /etc/hosts (hosts(5)), read again when the file has changed."""

from __future__ import annotations

import os
import socket
from pathlib import Path

__all__ = ["HOSTS", "Hosts", "parse_hosts"]

HOSTS = Path("/etc/hosts")
LIMIT = 4 << 20  # bytes: some people keep block lists in it
LOOK_AGAIN_S = 1.0


def parse_hosts(text: str) -> dict[str, tuple[bytes, ...]]:
    """Addresses by name, lower case; lines that make no sense are left out."""
    found: dict[str, tuple[bytes, ...]] = {}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if len(words) < 2:
            continue
        try:
            address = socket.inet_pton(socket.AF_INET6 if ":" in words[0] else socket.AF_INET, words[0])
        except (OSError, ValueError):
            continue
        for name in words[1:]:
            key = name.lower().removesuffix(".")
            found[key] = (*found.get(key, ()), address)
    return found


class Hosts:
    """The file, as it is now."""

    def __init__(self, path: Path = HOSTS) -> None:
        self._path = path
        self._seen: tuple[int, ...] = ()
        self._next_look = -LOOK_AGAIN_S
        self._found: dict[str, tuple[bytes, ...]] = {}

    def addresses(self, name: str, now: float) -> tuple[bytes, ...]:
        """Those of a name, perhaps none."""
        if now >= self._next_look:
            self._next_look = now + LOOK_AGAIN_S
            self._look()
        return self._found.get(name, ())

    def _look(self) -> None:
        try:
            stat = os.stat(self._path)
            seen = (stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if seen != self._seen:
                self._seen = seen
                with self._path.open("rb") as file:
                    self._found = parse_hosts(file.read(LIMIT).decode("utf-8", "replace"))
        except OSError:
            self._seen = ()
            self._found = {}
