"""What a mechanism means to do, as a value: files to write and programs to call, in this order."""

from __future__ import annotations

from dataclasses import dataclass

from zignet.system.names.wanted import Mode, NamesError, Server, Wanted

__all__ = ["Command", "File", "Plan", "heading", "server53"]

Command = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class File:
    """What a file is to contain."""

    path: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """All of it. What undoes the commands is `undo` of the same mechanism."""

    mechanism: Mode
    steps: tuple[File | Command, ...] = ()
    changes: tuple[str, ...] = ()  # for people
    upstream_file: str = ""


def server53(wanted: Wanted) -> Server:
    """For what can't be given a port. Raises `NamesError`."""
    if (server := wanted.server53) is None:
        raise NamesError("no name server of this node listens on port 53, and no other can be given there")
    return server


def heading() -> str:
    """The first line of every file of ours."""
    return "# Written by ZigNet, and removed when it stops; `zignet dns restore` does it by hand.\n"
