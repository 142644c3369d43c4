"""Giving up rights, and namespaces that others can be put into: prctl(2), capset(2), unshare(2), setns(2), mount(2).

The packet process keeps CAP_NET_ADMIN alone, and so could not start a child under another user later on. Therefore it
makes, while it still may, a user namespace that maps every user to itself: whoever has made one has all rights *in* it
(user_namespaces(7)), and none with it outside. A child that enters may become another user there, and then has no
rights anywhere.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path

__all__ = [
    "Cap",
    "Realm",
    "become",
    "capabilities",
    "dies_with_parent",
    "keep",
    "may_reach",
    "stays_private",
]


class Cap(IntEnum):
    """linux/capability.h"""

    DAC_OVERRIDE = 1
    KILL = 5
    SETGID = 6
    SETUID = 7
    SETPCAP = 8
    NET_BIND_SERVICE = 10
    NET_ADMIN = 12
    NET_RAW = 13
    SYS_ADMIN = 21


# linux/prctl.h
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 1, 4, 24, 38, 47
PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_CLEAR_ALL = 2, 4
SIGKILL = 9
VERSION_3 = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
MOST_CAPS = 64
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000  # linux/sched.h
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT = 1, 2, 4, 0x20  # linux/mount.h
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
EVERYBODY = "0 0 4294967295"  # a map of all users, or groups, to themselves

_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def _check(what: str, result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _prctl(what: str, *numbers: int) -> None:
    padded = [ctypes.c_ulong(number) for number in (*numbers, 0, 0, 0, 0)[:5]]
    _check(what, _libc.prctl(ctypes.c_int(numbers[0]), *padded[1:]))


def capabilities() -> frozenset[int]:
    """What this thread may do at all (its permitted set). Raises OSError."""
    data = (_Data * 2)()
    _check("capget", _libc.capget(ctypes.byref(_Header(VERSION_3, 0)), data))
    bits = data[0].permitted | data[1].permitted << 32
    return frozenset(number for number in range(MOST_CAPS) if bits >> number & 1)


def _set(permitted: Iterable[int], effective: Iterable[int], inheritable: Iterable[int] = ()) -> None:
    data = (_Data * 2)()
    for name, numbers in (
        ("permitted", permitted),
        ("effective", effective),
        ("inheritable", inheritable),
    ):
        for number in numbers:
            word = data[number >> 5]
            setattr(word, name, getattr(word, name) | 1 << (number & 31))
    _check("capset", _libc.capset(ctypes.byref(_Header(VERSION_3, 0)), data))


def keep(wanted: Iterable[int]) -> frozenset[int]:
    """Give up all capabilities but these, for good; those that are left. Children get no more either.

    Of this thread, and of those that it starts: call it before there are others. Raises OSError.
    """
    before = capabilities()
    left = before & frozenset(wanted)
    _bound(before, left)
    _prctl("PR_CAP_AMBIENT", PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    _set(left, left, left)
    if os.geteuid() != 0:  # programs that it starts, which need them at its end, get them by this alone
        for number in left:
            _prctl("PR_CAP_AMBIENT", PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)
    return left


def _bound(permitted: frozenset[int], left: frozenset[int]) -> None:
    """Have no program that is run from now on get others; where that is not ours to say, they have none to get."""
    if Cap.SETPCAP in permitted:
        _set(permitted, permitted)
        last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
        for number in range(last + 1):
            if number not in left:
                _prctl("PR_CAPBSET_DROP", PR_CAPBSET_DROP, number)


def may_reach(path: Path, without: Iterable[int]) -> bool:
    """Whether this process could use a file or a directory if it did not have these capabilities."""
    permitted = capabilities()
    _set(permitted, permitted - frozenset(without))
    try:
        mode = os.R_OK | os.W_OK | os.X_OK if path.is_dir() else os.R_OK
        return os.access(path, mode, effective_ids=True)
    except PermissionError:
        return False
    finally:
        _set(permitted, permitted)


def stays_private() -> None:
    """No core dumps, and no other process of the same user looks into this one's memory. Raises OSError."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl("PR_SET_DUMPABLE", PR_SET_DUMPABLE, 0)


def dies_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent, whose pid this is, has gone. Raises OSError."""
    _prctl("PR_SET_PDEATHSIG", PR_SET_PDEATHSIG, SIGKILL)
    if os.getppid() != parent:
        sys.exit(0)


def become(uid: int, gid: int) -> None:
    """Be this user, with no capability, and without a way to any. Raises OSError."""
    _bound(capabilities(), frozenset())
    if os.geteuid() != uid:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    _prctl("PR_CAP_AMBIENT", PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    _set((), ())
    _prctl("PR_SET_NO_NEW_PRIVS", PR_SET_NO_NEW_PRIVS, 1)


def _furnish(shown: Iterable[Path], covered: Iterable[Path]) -> None:
    """In a new mount namespace."""
    os.umask(0o022)
    _mount("", "/", MS_REC | MS_PRIVATE)
    held = [(path, os.open(path, os.O_PATH)) for path in shown]
    for path in covered:
        _mount("tmpfs", path, MS_NOSUID | MS_NODEV, "tmpfs", "mode=0711,size=64k")
    for path, descriptor in held:
        path.mkdir(parents=True, exist_ok=True)
        _mount(f"/proc/self/fd/{descriptor}", path, MS_BIND | MS_REC)
    for path in covered:
        _mount("", path, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def _mount(source: str, target: Path | str, flags: int, kind: str = "", options: str = "") -> None:
    texts = os.fsencode(source), os.fsencode(target), kind.encode()
    _check("mount", _libc.mount(*texts, ctypes.c_ulong(flags), options.encode()))


class Realm:
    """A user namespace and a mount namespace, held open by two descriptors, to be entered by children."""

    def __init__(self, user: int, mount: int) -> None:
        self.descriptors = (user, mount)

    @classmethod
    def make(cls, shown: Iterable[Path] = (), covered: Iterable[Path] = ()) -> Realm:
        """New ones. The `covered` directories look empty there, but for what is `shown` below them.

        Needs root, and a process of one thread. Raises OSError.
        """
        ready, done = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(ready[0])
                os.close(done[1])
                _check("unshare", _libc.unshare(CLONE_NEWUSER | CLONE_NEWNS))
                os.write(ready[1], b"u")
                os.read(done[0], 1)
                _furnish(shown, covered)
                os.write(ready[1], b"m")
                os.read(done[0], 1)
                os._exit(0)
            except OSError as error:
                os._exit(error.errno or 255)
            finally:
                os._exit(255)
        os.close(ready[1])
        os.close(done[0])
        try:
            if os.read(ready[0], 1):
                for name in ("uid_map", "gid_map"):
                    Path(f"/proc/{pid}/{name}").write_text(EVERYBODY)
                os.write(done[1], b"g")
                if os.read(ready[0], 1):
                    user = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
                    return cls(user, os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC))
        finally:
            os.close(ready[0])
            os.close(done[1])
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        raise OSError(code, os.strerror(code))

    @staticmethod
    def enter(user: int, mount: int) -> None:
        """Go into it: in a process of one thread, which keeps its user and gets all rights inside. Raises OSError."""
        _check("setns", _libc.setns(user, CLONE_NEWUSER))
        _check("setns", _libc.setns(mount, CLONE_NEWNS))

    def close(self) -> None:
        """Let go; whoever is inside stays."""
        for descriptor in self.descriptors:
            os.close(descriptor)
