"""The name servers of this system: from `resolv.conf`, or as configured.

Where systemd-resolved's own stub is listed, the servers behind it are taken; an address of this node never is, and a
file that names nobody else changes nothing: so it may be pointed here while the node runs.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

__all__ = ["RESOLVED", "RESOLV_CONF", "Server", "Upstreams", "parse_resolv_conf"]

Server = tuple[str, int]  # address as text (perhaps with a zone), port

RESOLV_CONF = Path("/etc/resolv.conf")
RESOLVED = Path("/run/systemd/resolve/resolv.conf")
STUBS = frozenset(("127.0.0.53", "127.0.0.54"))  # systemd-resolved's
PORT = 53
MOST_SERVERS = 3  # MAXNS of resolv.h
LOOK_AGAIN_S = 1.0
LIMIT = 64 << 10  # bytes of such a file


def parse_resolv_conf(text: str) -> list[str]:
    """The addresses on its `nameserver` lines (resolv.conf(5)); what is none is left out."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver" and _is_address(words[1]):
            found.append(words[1])
    return list(dict.fromkeys(found))


def _is_address(text: str) -> bool:
    try:
        if ":" in text:
            socket.inet_pton(socket.AF_INET6, text.partition("%")[0])
        else:
            socket.inet_pton(socket.AF_INET, text)
    except (OSError, ValueError):
        return False
    return True


class Upstreams:
    """Whom to ask. The files are looked at again when they have changed, at most once a second."""

    def __init__(
        self,
        given: Iterable[Server] = (),
        *,
        own: Iterable[str] = (),  # addresses of this node's own server
        note: Callable[[str], None] = lambda text: None,
        resolv_conf: Path = RESOLV_CONF,
        resolved: Path = RESOLVED,
    ) -> None:
        self._given = tuple(given)
        self._own = frozenset(own)
        self._note = note
        self._files = (resolv_conf, resolved)
        self._seen: object = None
        self._next_look = -LOOK_AGAIN_S
        self._found: tuple[Server, ...] = ()
        self._behind: tuple[str, ...] = ()

    def stand_in(self, behind: Iterable[str], file: str = "") -> None:
        """The system asks us instead of these from now on; `file`: where somebody keeps them up to date."""
        self._behind = tuple(behind)
        if file:
            self._files = (Path(file), self._files[1])
        self._seen = None
        self._next_look = -LOOK_AGAIN_S

    def use(self, given: Sequence[Server]) -> None:
        """Ask these from now on; none: those of the system again."""
        self._given = tuple(given)

    def servers(self, now: float) -> tuple[Server, ...]:
        """In the order of the system's preference; empty if there is none."""
        if self._given:
            return self._given
        if now >= self._next_look:
            self._next_look = now + LOOK_AGAIN_S
            marks = tuple(map(_mark, self._files))
            if marks != self._seen:
                self._seen = marks
                self._read()
        return self._found

    def _read(self) -> None:
        listed = parse_resolv_conf(_text_of(self._files[0]))
        if STUBS.intersection(listed):
            behind = parse_resolv_conf(_text_of(self._files[1]))
            listed = (
                list(dict.fromkeys((*(host for host in listed if host not in STUBS), *behind)))
                if behind
                else listed
            )
        others = [host for host in listed if host not in self._own] or [
            host for host in self._behind if host not in STUBS and host not in self._own
        ]
        found = tuple((host, PORT) for host in others)[:MOST_SERVERS]
        if found and found != self._found:
            self._note("names are asked of " + ", ".join(host for host, _ in found))
            self._found = found
        elif not listed:
            self._found = ()


def _mark(path: Path) -> tuple[int, ...]:
    """Differs when the file does."""
    try:
        stat = os.stat(path)
    except OSError:
        return ()
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(LIMIT).decode("utf-8", "replace")
    except OSError:
        return ""
