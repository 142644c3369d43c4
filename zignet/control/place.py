"""Where the running node is found: one socket and one lock file in the state directory."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["AlreadyRunning", "Place", "listen", "socket_address"]

SOCKET_NAME = "zignet.sock"
LOCK_NAME = "zignet.lock"
CONTROL_NAME = "control"  # in the state directory; what the control process keeps
BACKLOG = 16


class AlreadyRunning(Exception):
    """Another node holds this state directory; the text says which."""


class Place:
    """The node's hold on its state directory: an exclusive lock and a listening socket.

    The kernel drops the lock with the process, however it ends, so no lock is ever stale.
    """

    def __init__(self, listener: socket.socket, lock: int, path: Path) -> None:
        self.listener = listener
        self.path = path  # of the socket
        self._lock = lock

    @classmethod
    def claim(cls, state_dir: Path) -> Place:
        """Make the directory (mode 0700) if need be, lock it, and listen (mode 0600, non-blocking).

        A socket that a killed node left behind is replaced. Raises `AlreadyRunning`, OSError.
        """
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(state_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock_or_say_who(lock, state_dir)
            listener = listen(state_dir, SOCKET_NAME, 0o600)
        except BaseException:
            os.close(lock)
            raise
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        return cls(listener, lock, state_dir / SOCKET_NAME)

    def close(self) -> None:
        """Remove the socket and give up the lock. Safe to call twice."""
        if self._lock < 0:
            return
        self.listener.close()
        with suppress(OSError):
            self.path.unlink()
        os.close(self._lock)
        self._lock = -1


@contextmanager
def socket_address(state_dir: Path, name: str = SOCKET_NAME) -> Iterator[str]:
    """A socket's path in a form that fits `sockaddr_un` (108 bytes) however deep the directory lies."""
    directory = os.open(state_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{name}"
    finally:
        os.close(directory)


def _lock_or_say_who(lock: int, state_dir: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        pid = os.pread(lock, 16, 0).decode("ascii", "replace").strip()
        who = f"process {pid}" if pid.isdigit() else "another process"
        raise AlreadyRunning(
            f"ZigNet is already running with the state directory {state_dir} ({who}). "
            "Stop it first, or give this one a state_dir of its own."
        ) from error


def listen(state_dir: Path, name: str, mode: int) -> socket.socket:
    """A unix socket that listens, non-blocking; one that was left behind is replaced. Raises OSError."""
    with suppress(FileNotFoundError):
        (state_dir / name).unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(~mode & 0o777)  # so that the socket never exists with wider permissions
        try:
            with socket_address(state_dir, name) as address:
                listener.bind(address)
        finally:
            os.umask(before)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener
