"""Under which user the control process runs, and how that one reaches what it needs.

That user is the node's own, or, where this is root, the owner of the state directory, or nobody. Python, ZigNet and the
state directory may lie where others can't go (/root has mode 0700): then the process gets a view of the file system in
which just these are to be seen there.
"""

from __future__ import annotations

import os
import pwd
import stat
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import zignet
from zignet.control.place import CONTROL_NAME
from zignet.rights import Cap, Realm, capabilities

__all__ = ["User", "closed_on_the_way", "user_of"]

NOBODY = 65534
_CHANGES_USER = frozenset((Cap.SETUID, Cap.SETGID))


@dataclass(frozen=True, slots=True)
class User:
    """A user, and what it can do."""

    uid: int
    gid: int
    state: Path  # a directory of its own
    realm: Realm | None = None  # where it is to be started; None: here
    covered: tuple[Path, ...] = ()  # what it can't see
    note: str = ""  # for the person

    @property
    def name(self) -> str:
        """As people know it."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    @property
    def needs(self) -> frozenset[Cap]:
        """What whoever starts it anew must still be able to do."""
        if self.realm is not None or self.uid == os.geteuid():
            return frozenset()
        return _CHANGES_USER | {Cap.KILL, Cap.SETPCAP}

    def close(self) -> None:
        """Let go of what it needs."""
        if self.realm is not None:
            self.realm.close()


def user_of(state_dir: Path) -> User:
    """The user for this state directory, which is there; its own directory in it is made. Raises OSError."""
    state = state_dir.absolute() / CONTROL_NAME
    own = os.geteuid()
    if own != 0 or not capabilities() >= _CHANGES_USER:
        _own_directory(state, own)
        note = "" if own else "it runs as root, without capabilities: this process may not change its user"
        return User(own, os.getegid(), state, note=note)
    owner = state_dir.stat()
    uid, gid = (owner.st_uid, owner.st_gid) if owner.st_uid else _nobody()
    _own_directory(state, uid)
    shown = [state, *_code()]
    covered = _outermost(each for each in (closed_on_the_way(path, uid, gid) for path in shown) if each)
    below = [path for path in shown if any(path.is_relative_to(each) for each in covered)]
    try:
        return User(uid, gid, state, Realm.make(_outermost(below), covered), covered)
    except OSError as error:
        note = f"it has no view of its own ({error.strerror}), so the node keeps the right to change users"
        if covered:
            note += f", and the control process can't go into {', '.join(map(str, covered))}"
        return User(uid, gid, state, note=note)


def closed_on_the_way(path: Path, uid: int, gid: int) -> Path | None:
    """The first directory on the way to `path` that this user may not go through. `path` has no symbolic links."""
    for directory in reversed(path.parents):
        found = directory.stat()
        if found.st_uid == uid:
            bit = stat.S_IXUSR
        elif found.st_gid == gid:
            bit = stat.S_IXGRP
        else:
            bit = stat.S_IXOTH
        if not found.st_mode & bit:
            return directory
    return None


def _code() -> list[Path]:
    """Where Python and ZigNet lie."""
    places: list[str | Path] = [
        sys.prefix,
        sys.base_prefix,
        sys.exec_prefix,
        Path(zignet.__file__).parent.parent,
    ]
    found = {Path(each).resolve(): None for each in (*places, *sys.path) if each and Path(each).is_dir()}
    return list(found)


def _nobody() -> tuple[int, int]:
    try:
        found = pwd.getpwnam("nobody")
    except KeyError:
        return NOBODY, NOBODY
    return found.pw_uid, found.pw_gid


def _outermost(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Without those that lie in others of them."""
    kept: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(each) for each in kept):
            kept.append(path)
    return tuple(kept)


def _own_directory(path: Path, uid: int) -> None:
    """Make it, or take it over. The node's group may read what is in it: root without capabilities is just that.

    Its parent may belong to somebody who sets traps.
    """
    gid = os.getegid()
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if (found.st_uid, found.st_gid) != (uid, gid):
            os.fchown(descriptor, uid, gid)
            for name in os.listdir(descriptor):
                os.chown(name, uid, gid, dir_fd=descriptor, follow_symlinks=False)
        os.fchmod(descriptor, 0o2750)  # files in it are of that group, too
    finally:
        os.close(descriptor)
