"""The keys of sessions, one line each, for who wants to look into a capture (`zignet wire-dump --keys`).

    1 <suite> <local index> <remote index> <send key> <receive key> <peer's name>

The first field is the version of the line; indices are 8 hexadecimal digits, keys 64. Who has such a file can read
what was sent in these sessions, so the node writes it only when it is told to, with mode 0600.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TextIO

__all__ = ["LINE_LIMIT", "BadLine", "KeyLog", "SessionKeys", "format_line", "parse_line"]

LINE_LIMIT = 512  # characters; ours have 215
_SESSIONS = 1 << 20  # of one file
_PROBLEMS = 100  # that are kept

_FIELDS = (
    ("version", re.compile("1")),
    ("suite", re.compile("[12]")),
    ("local index", re.compile("[0-9a-f]{8}")),
    ("remote index", re.compile("[0-9a-f]{8}")),
    ("send key", re.compile("[0-9a-f]{64}")),
    ("receive key", re.compile("[0-9a-f]{64}")),
    ("peer's name", re.compile("[a-z2-7]{56}")),
)


class BadLine(ValueError):
    """A line that tells no session. The text never shows what stands in it."""


@dataclass(frozen=True, slots=True)
class SessionKeys:
    """One session, as this side saw it."""

    suite: int
    local_index: int  # names the session in messages to this side
    remote_index: int  # and in those from it
    send_key: bytes = field(repr=False)
    receive_key: bytes = field(repr=False)
    peer: str  # its name, 56 characters


def format_line(
    suite: int, local_index: int, remote_index: int, send_key: bytes, receive_key: bytes, peer: str
) -> str:
    """The line of a session, its end included. Raises ValueError where `parse_line` would not read it."""
    line = f"1 {suite:d} {local_index:08x} {remote_index:08x} {send_key.hex()} {receive_key.hex()} {peer}\n"
    parse_line(line)
    return line


def parse_line(line: str) -> SessionKeys:
    """The session of a line. Raises BadLine."""
    words = line.split()
    if len(words) != len(_FIELDS):
        raise BadLine(f"a line has {len(_FIELDS)} fields, not {len(words)}")
    for word, (name, form) in zip(words, _FIELDS, strict=True):
        if form.fullmatch(word) is None:
            raise BadLine(f"the {name} is not one")
    local, remote = int(words[2], 16), int(words[3], 16)
    if not local or not remote:
        raise BadLine("an index is never 0")
    return SessionKeys(
        int(words[1]), local, remote, bytes.fromhex(words[4]), bytes.fromhex(words[5]), words[6]
    )


@dataclass(slots=True)
class KeyLog:
    """The sessions of a file, by the index that a message bears."""

    problems: list[tuple[int, str]] = field(
        default_factory=list
    )  # line number, what is wrong; the first hundred
    bad_lines: int = 0
    sessions: int = 0
    _by_index: dict[int, list[tuple[SessionKeys, bool]]] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, stream: TextIO) -> KeyLog:
        """Every line that tells a session; empty ones and those that begin with `#` are passed over."""
        log = cls()
        for number, line in enumerate(_lines(stream), 1):
            if not line.strip() or line.startswith("#"):
                continue
            try:
                log.add(parse_line(line))
            except BadLine as error:
                log.bad_lines += 1
                if len(log.problems) < _PROBLEMS:
                    log.problems.append((number, str(error)))
        return log

    def add(self, session: SessionKeys) -> None:
        """One more; said twice it counts once. Raises BadLine when there are too many."""
        if self.sessions >= _SESSIONS:
            raise BadLine(f"more than {_SESSIONS} sessions")
        mine = self._by_index.setdefault(session.local_index, [])
        if (session, False) in mine:
            return
        self.sessions += 1
        mine.append((session, False))
        self._by_index.setdefault(session.remote_index, []).append((session, True))

    def find(self, index: int) -> list[tuple[SessionKeys, bytes, bool]]:
        """Sessions whose messages may bear this receiver's index: session, key, whether this side sent them."""
        return [
            (session, session.send_key if sent else session.receive_key, sent)
            for session, sent in self._by_index.get(index, ())
        ]


def _lines(stream: TextIO) -> Iterator[str]:
    """The lines of a stream, none longer than LINE_LIMIT: what is longer is no line of ours anyway."""
    while line := stream.readline(LINE_LIMIT):
        yield line
        while line and not line.endswith("\n"):
            line = stream.readline(LINE_LIMIT)
