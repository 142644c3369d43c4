"""Files that say what of the system is to be put back, in the state directory: how they are written, read and removed.

Such a file is replaced as a whole (written beside it, synced, renamed), so it is always the earlier or the later one.
What is in it may make root change the system, so it counts only if it belongs to root or to whoever runs this.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from zignet.durable import sync_directory

__all__ = ["UntrustedError", "load", "remove", "replace"]


class UntrustedError(Exception):
    """The file may be somebody else's; the text names it."""


def replace(path: Path, text: str) -> None:
    """Durably; afterwards it is this one or, after an error, the earlier one. Raises OSError."""
    beside = path.with_name(f"{path.name}.new")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        beside.unlink()
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    os.rename(beside, path)
    sync_directory(path.parent)


def load(path: Path, most: int) -> bytes | None:
    """At most `most` bytes of the file, or None where there is none. Raises OSError, `UntrustedError`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise UntrustedError(f"{path} is no file")
        if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
            raise UntrustedError(
                f"{path} could have been written by somebody else, so it was not followed: it must belong to root "
                "and be writable by nobody else"
            )
        return file.read(most)


def remove(path: Path) -> None:
    """The file, and what an interrupted `replace` has left. Raises OSError."""
    for name in (path, path.with_name(f"{path.name}.new")):
        with suppress(FileNotFoundError, NotADirectoryError):
            name.unlink()
    with suppress(FileNotFoundError, NotADirectoryError):
        sync_directory(path.parent)
