"""What an installation keeps of itself: which device it is, and how far its timestamps have gone (protocol.md §3).

Two tiny files of their own beside the table of peers, so that no fault of the table's takes them along. Each is
replaced as a whole and is on the disk before it counts: a power cut may be followed by a clock that was set back.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

__all__ = ["DEVICE_NAME", "STAMP_NAME", "StampFile", "device"]

DEVICE_NAME = "device"
STAMP_NAME = "timestamp"

_DEVICE_SIZE = 8  # bytes


def device(
    directory: Path,
    random: Callable[[int], bytes] = os.urandom,
    note: Callable[[str], None] = lambda text: None,
) -> bytes:
    """The 8 bytes that tell this installation from another with the same key; made where there are none.

    Where they can't be kept they hold for this run, and `note` is told.
    """
    path = directory / DEVICE_NAME
    try:
        kept = bytes.fromhex(path.read_text("ascii"))
        if len(kept) == _DEVICE_SIZE:
            return kept
    except (OSError, ValueError):
        pass
    made = random(_DEVICE_SIZE)
    try:
        _replace(path, f"{made.hex()}\n")
    except OSError as error:
        note(f"{path} can't be written ({error}). After a restart this node passes for another device.")
    return made


class StampFile:
    """Keeps the ceiling of `zignet.noise.Stamps`: `Stamps(file.reserved, file.persist)`."""

    __slots__ = ("_note", "_path", "_told", "reserved")

    def __init__(self, directory: Path, note: Callable[[str], None] = lambda text: None) -> None:
        self._path = directory / STAMP_NAME
        self._note = note
        self._told = False
        self.reserved = self._read()  # µs since 1970

    def _read(self) -> int:
        try:
            text = self._path.read_text("ascii").strip()
            if text.isdigit() and len(text) <= 20 and int(text) < 1 << 64:
                return int(text)
        except FileNotFoundError:
            return 0
        except (OSError, ValueError):
            pass
        self._note(
            f"{self._path} can't be read. If the clock was set back, peers refuse this node until it has caught up."
        )
        return 0

    def persist(self, ceiling: int) -> None:
        """Keep it; it is on the disk on return. Never raises: without a disk the node goes on, and says so once."""
        try:
            _replace(self._path, f"{ceiling}\n")
        except OSError as error:
            if not self._told:
                self._told = True
                self._note(
                    f"{self._path} can't be written ({error}). If the clock is set back and ZigNet is started again, "
                    "peers refuse this node until it has caught up."
                )


def _replace(path: Path, text: str) -> None:
    """Put a new content in a file's place, mode 0600. The old one or the new one is there at any moment."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new")
    with suppress(FileNotFoundError):
        fresh.unlink()
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, text.encode("ascii"))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(fresh, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
