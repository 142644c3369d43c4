"""One change to one file: what it was, what it becomes, and how it is put there. Atomic where that is possible.

A file that is mounted by itself (containers do that with /etc/resolv.conf) can't be renamed over. It is written in
place: first the bytes, then the length, so that at any moment it is the new bytes followed by the old ones' rest,
which `torn` knows again.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass, replace

from zignet.durable import sync_directory

__all__ = ["ABSENT", "Change", "State", "UnwritableError", "look", "put", "torn"]

MOST = 1 << 20  # bytes of a file that we are ready to take the place of

_UNRENAMED = (
    errno.EBUSY,
    errno.EXDEV,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
)  # perhaps writable all the same


class UnwritableError(Exception):
    """A file can't be changed; the text says why."""


@dataclass(frozen=True, slots=True)
class State:
    """What is found at a path: nothing, a symlink with its target, or a file."""

    kind: str = "absent"  # absent | link | file
    content: bytes = b""  # of a symlink: its target
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    attributes: tuple[tuple[str, bytes], ...] = ()  # extended ones: labels, access lists

    def same(self, other: State) -> bool:
        """Whether the same would be read; whose it is and who may read it is left out."""
        return (self.kind, self.content) == (other.kind, other.content)


ABSENT = State()


@dataclass(frozen=True, slots=True)
class Change:
    """One file: from `before` to `after`. `token` names the temporary file beside it."""

    path: str
    before: State
    after: State
    token: str
    in_place: bool = False
    made: str = ""  # the topmost directory that has to be made first, and goes again when it is empty

    @property
    def temporary(self) -> str:
        """Where the new file stands until it is renamed."""
        directory, name = os.path.split(self.path)
        return os.path.join(directory, f".{name}.zignet-{self.token}")

    @property
    def made_directories(self) -> tuple[str, ...]:
        """What has to be made first, the deepest first."""
        found = [os.path.dirname(self.path)] if self.made else []
        while found and found[-1] != self.made:
            found.append(os.path.dirname(found[-1]))
        return tuple(found)

    def undone_from(self, now: State) -> State | None:
        """What to put there, given what is there now; None where somebody else has changed it since.

        Who has only changed owner or mode keeps them.
        """
        if now.same(self.before):
            return now
        ours = now.same(self.after) or (self.in_place and torn(now, self.before, self.after))
        if not ours:
            return None
        if self.before.kind == "absent":
            return ABSENT
        kept = {
            name: getattr(now, name)
            for name in ("mode", "uid", "gid")
            if now.kind == self.after.kind == self.before.kind
            and getattr(now, name) != getattr(self.after, name)
        }
        return replace(self.before, **kept)


def torn(now: State, one: State, other: State) -> bool:
    """Whether this is what a write in place leaves when it is cut short: a beginning of one, the rest of the other."""
    if {now.kind, one.kind, other.kind} != {"file"}:
        return False
    for begun, rest in ((one.content, other.content), (other.content, one.content)):
        pairs = zip(now.content, begun, strict=False)
        count = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(now.content), len(begun)))
        if now.content[count:] == rest[count:]:
            return True
    return False


def look(path: str) -> State:
    """What is there now. Raises `UnwritableError` for what can't be read, or is neither file nor symlink."""
    try:
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            return State("link", os.fsencode(os.readlink(path)), 0o777, found.st_uid, found.st_gid)
        if not stat.S_ISREG(found.st_mode) or found.st_size > MOST:
            raise UnwritableError(f"{path} is not a file of at most {MOST >> 20} MiB")
        with open(path, "rb") as file:
            content = file.read(MOST + 1)
    except (FileNotFoundError, NotADirectoryError):
        return ABSENT
    except OSError as error:
        raise UnwritableError(f"{path} can't be read: {error.strerror}") from error
    return State("file", content, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, _attributes(path))


def put(path: str, wanted: State, temporary: str, in_place: bool) -> None:
    """Make the path this, durably. Raises `UnwritableError`; `NeedsPlaceError` where only writing in place is left."""
    try:
        if wanted.kind == "absent":
            os.unlink(path)
        elif in_place:
            _write_in_place(path, wanted.content)
        else:
            _make(temporary, wanted)
            os.rename(temporary, path)
        sync_directory(os.path.dirname(path))
    except OSError as error:
        if wanted.kind != "absent" and not in_place:
            with suppress(OSError):
                os.unlink(temporary)
        if not in_place and error.errno in _UNRENAMED and _is_writable_file(path, wanted):
            raise NeedsPlaceError(path) from error
        raise UnwritableError(f"{path} can't be changed: {_why(path, error)}") from error


class NeedsPlaceError(UnwritableError):
    """The file can't be replaced, but perhaps written."""


def _is_writable_file(path: str, wanted: State) -> bool:
    """Never through a symlink: what lies behind it is somebody else's."""
    with suppress(OSError):
        return wanted.kind == "file" and stat.S_ISREG(os.lstat(path).st_mode) and os.access(path, os.W_OK)
    return False


def _make(path: str, wanted: State) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)  # of a run that was killed
    if wanted.kind == "link":
        os.symlink(wanted.content, path)
        os.lchown(path, wanted.uid, wanted.gid)
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        file.write(wanted.content)
        file.flush()
        os.fchown(descriptor, wanted.uid, wanted.gid)
        for name, value in wanted.attributes:
            with suppress(OSError):  # a label that this file system does not take
                os.setxattr(descriptor, name, value)
        os.fchmod(descriptor, wanted.mode)
        os.fsync(descriptor)


def _write_in_place(path: str, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        at = 0
        while at < len(content):
            at += os.pwrite(descriptor, content[at:], at)
        os.ftruncate(descriptor, len(content))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _attributes(path: str) -> tuple[tuple[str, bytes], ...]:
    if not hasattr(os, "listxattr"):
        return ()
    with suppress(OSError):
        return tuple((name, os.getxattr(path, name)) for name in sorted(os.listxattr(path)))
    return ()


def _why(path: str, error: OSError) -> str:
    match error.errno:
        case errno.EROFS:
            return "the file system is read-only"
        case errno.EPERM | errno.EACCES if os.geteuid() == 0:
            return f"it is immutable, or something protects it (see `lsattr {path}`; `chattr -i {path}` lifts that)"
        case errno.EPERM | errno.EACCES:
            return "only root may"
        case errno.ENOENT:
            return "its directory does not exist"
    return error.strerror or str(error)
