# cython: boundscheck=False, wraparound=False
"""The pump: what comes from one socket goes to the other, both ways, until both have ended.

A relay has two `Stream`s, one per socket. A short flow is copied through one buffer that all flows share; once
a direction has carried `SPLICE_AFTER` bytes it goes through a pipe with splice(2), and its bytes never enter
this process. A direction borrows its pipe only while it moves bytes, so idle flows hold no more than their sockets.

Back pressure: nothing is read from a socket while what was read before has not been written.
End of file on one side is a shutdown of the other (half-close); a reset on one side is a reset of the other.
Sockets are watched edge-triggered, once; `readable` and `writable` remember the edges.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from socket import SocketType
from typing import Any

import cython

from nat.loop import EDGE, READ, WRITE, Loop

if cython.compiled:
    from cython.cimports.libc.errno import errno as c_errno
    from cython.cimports.posix.unistd import read as c_read
    from cython.cimports.posix.unistd import write as c_write

__all__ = ["Pipes", "Relay", "Stream"]

BUFFER = 128 * 1024  # bytes; the shared copy buffer
SPLICE_AFTER = 128 * 1024  # bytes a direction must have carried to be worth a pipe
PIPE_SIZE = 1024 * 1024
MAX_PIPES = 256  # beyond these, directions are copied
TURN = 4 * 1024 * 1024  # bytes one direction may move before the others have their turn

EAGAIN: cython.int = errno.EAGAIN
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER, zero seconds: close sends a RST
SPLICE_FLAGS = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE  # type: ignore[attr-defined,unused-ignore]
HANG_UP: cython.int = 0x2010  # EPOLLRDHUP | EPOLLHUP
IN_OR_HUP: cython.int = 0x2019  # EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR
ERR: cython.int = 0x08  # EPOLLERR
OUT_OR_HUP: cython.int = 0x1C  # EPOLLOUT | EPOLLHUP | EPOLLERR
ALL = READ | WRITE | EDGE


class Pipes:
    """The pipes of one loop, and its shared buffer."""

    def __init__(self) -> None:
        self.buffer = bytearray(BUFFER)
        self.idle: list[tuple[int, int]] = []
        self.made = 0

    def take(self) -> tuple[int, int] | None:
        """A pipe of up to 1 MiB, or None when there are too many or no descriptors."""
        if self.idle:
            return self.idle.pop()
        if self.made >= MAX_PIPES:
            return None
        try:
            pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            import fcntl

            fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, PIPE_SIZE)  # type: ignore[attr-defined,unused-ignore]
        except OSError:
            pass  # a smaller one does, too (pipe-max-size)
        self.made += 1
        return pipe

    def give_back(self, pipe: tuple[int, int]) -> None:
        """An empty pipe, for the next who needs one."""
        self.idle.append(pipe)

    def discard(self, pipe: tuple[int, int]) -> None:
        """A pipe with bytes in it that nobody will read."""
        self.made -= 1
        os.close(pipe[0])
        os.close(pipe[1])

    def dispose(self) -> None:
        """Close those that are idle."""
        for pipe in self.idle:
            self.discard(pipe)
        self.idle.clear()


@cython.cclass
class Stream:
    """One socket of a relay, and what was read from it and is not written to the other yet."""

    sock: Any = cython.declare(object, visibility="readonly")
    fd: cython.int
    relay: Any
    other: Stream
    pending: bytes  # read here, not written there
    pipe: Any  # the borrowed pipe, (read end, write end), or None
    in_pipe: cython.Py_ssize_t
    moved = cython.declare(cython.ulonglong, visibility="public")  # bytes written to the other side
    readable: cython.bint
    writable: cython.bint
    hung_up: cython.bint  # the far end has sent a FIN: a short read does not mean empty
    eof: cython.bint  # the far end's FIN was read
    shut: cython.bint  # our FIN was sent

    def __init__(self, relay: Any, sock: SocketType, ahead: bytes, readable: bool) -> None:
        self.relay = relay
        self.sock = sock
        self.fd = sock.fileno()
        self.pending = ahead
        self.pipe = None
        self.in_pipe = 0
        self.moved = 0
        self.readable = readable
        self.writable = True
        self.hung_up = readable
        self.eof = False
        self.shut = False

    def join(self, other: Stream) -> None:
        """What is read here is written there."""
        self.other = other

    def release(self) -> None:
        """Over: break the cycles."""
        self.other = None  # type: ignore[assignment]
        self.relay = None
        self.sock = None

    def on_event(self, mask: cython.int) -> None:
        """Edges of our socket: move what can move."""
        relay = self.relay
        if relay is None:
            return
        other: Stream = self.other
        if mask & IN_OR_HUP:
            self.readable = True
            if mask & HANG_UP:
                self.hung_up = True
        if mask & ERR and (self.pending or self.in_pipe) and relay.local is self:
            relay.fail(
                "reset by the application"
            )  # nobody is left for whom a stalled exit should be waited for
            return
        if mask & OUT_OR_HUP and not self.writable:
            self.writable = True
            if not self.pump_over(other):
                return
        if self.readable and not self.pump_over(self):
            return
        relay.touch()

    @cython.cfunc
    @cython.exceptval(check=False)
    def pump_over(self, source: Stream) -> cython.bint:
        """Pump; False when that was the end of the relay."""
        alive: cython.bint = source.pump()
        return alive and self.relay is not None

    def abort(self) -> None:
        """A fault in this code: reset both sides rather than leave them hanging."""
        if self.relay is not None:
            self.relay.fail("internal error")

    def start(self) -> bool:
        """Move what is there already; False when that was the end of the relay."""
        return self.relay is not None and self.pump() and self.relay is not None

    def pump(self) -> cython.bint:
        """Move bytes from here to the other side until one of them has to wait; False when the relay is over."""
        sink: Stream = self.other
        n: cython.Py_ssize_t
        size: cython.Py_ssize_t
        turn: cython.Py_ssize_t = TURN
        while True:
            if self.pending:
                if not sink.writable:
                    return True
                if not self.flush():
                    return False
                if self.pending:
                    return True
            if self.in_pipe:
                if not sink.writable:
                    return True
                if not self.drain():
                    return False
                if self.in_pipe:
                    return True
            if self.eof:
                return self.finish()
            if not self.readable:
                break
            if turn <= 0:
                self.relay.again(self)
                break
            if self.moved >= SPLICE_AFTER and self.borrow():
                try:
                    n = os.splice(self.fd, self.pipe[1], PIPE_SIZE, flags=SPLICE_FLAGS)
                except OSError as error:
                    if error.errno != EAGAIN:
                        return self.broken(error.errno or errno.EIO)
                    self.readable = False
                    break
                self.in_pipe = n
            else:
                buffer = self.relay.pipes.buffer
                size = len(buffer)
                n = self.get(buffer, size)
                if n < 0:
                    if n == -EAGAIN:
                        self.readable = self.hung_up = False
                        break
                    return self.broken(-n)
                if n and n < size and not self.hung_up:
                    self.readable = False  # epoll(7): a short read has emptied the socket
                if n and not self.put(buffer, n):
                    return False
            if n == 0:
                self.eof = True
            turn -= n
        if self.pipe is not None and not self.in_pipe:
            self.relay.pipes.give_back(self.pipe)
            self.pipe = None
        return True

    @cython.cfunc
    def get(self, buffer: bytearray, size: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """Read into the shared buffer: bytes, 0 at the end, or -errno."""
        if cython.compiled:
            n: cython.Py_ssize_t = c_read(self.fd, cython.cast(cython.p_char, buffer), size)
            return n if n >= 0 else -c_errno
        try:
            return self.sock.recv_into(buffer)
        except OSError as error:
            return -(error.errno or errno.EIO)

    @cython.cfunc
    def put(self, buffer: bytearray, n: cython.Py_ssize_t) -> cython.bint:
        """Write the shared buffer's first bytes to the other side; the rest is pending. False: relay over."""
        sink: Stream = self.other
        sent: cython.Py_ssize_t
        if sink.writable:
            sent = 0
            if cython.compiled:
                sent = c_write(sink.fd, cython.cast(cython.p_char, buffer), n)
                if sent < 0:
                    sent = -c_errno
            else:
                try:
                    sent = sink.sock.send(memoryview(buffer)[:n])
                except OSError as error:
                    sent = -(error.errno or errno.EIO)
            if sent < 0:
                if sent != -EAGAIN:
                    return sink.broken(-sent)
                sent = 0
            self.moved += sent
            if sent == n:
                return True
            self.pending = bytes(buffer[sent:n])
            sink.blocked()
            return True
        self.pending = bytes(buffer[:n])
        return True

    @cython.cfunc
    def flush(self) -> cython.bint:
        """Write what is pending; False: relay over."""
        sink: Stream = self.other
        try:
            sent = sink.sock.send(self.pending)
        except OSError as error:
            if error.errno != EAGAIN:
                return sink.broken(error.errno or errno.EIO)
            sent = 0
        self.moved += sent
        self.pending = self.pending[sent:]
        if self.pending:
            sink.blocked()
        return True

    @cython.cfunc
    def borrow(self) -> cython.bint:
        """Have a pipe; False when there is none to be had."""
        if self.pipe is None:
            self.pipe = self.relay.pipes.take()
        return self.pipe is not None

    @cython.cfunc
    def drain(self) -> cython.bint:
        """Splice from the pipe to the other side; False: relay over."""
        sink: Stream = self.other
        n: cython.Py_ssize_t
        while self.in_pipe:
            try:
                n = os.splice(self.pipe[0], sink.fd, self.in_pipe, flags=SPLICE_FLAGS)
            except OSError as error:
                if error.errno != EAGAIN:
                    return sink.broken(error.errno or errno.EIO)
                sink.blocked()
                return True
            self.in_pipe -= n
            self.moved += n
        return True

    @cython.cfunc
    def blocked(self) -> cython.void:
        """Our socket takes no more: wait for its edge."""
        self.writable = False
        self.relay.want_write(self.fd)

    @cython.cfunc
    def finish(self) -> cython.bint:
        """Our end of file, all of it delivered: half-close the other side, or end; False: relay over."""
        sink: Stream = self.other
        if self.relay.failing:
            return False  # a socket that was reset reads as ended: no FIN may go ahead of our RST
        if self.pipe is not None:
            self.relay.pipes.give_back(self.pipe)
            self.pipe = None
        if sink.eof and not sink.pending and not sink.in_pipe:
            self.relay.end("")
            return False
        if not sink.shut:
            sink.shut = True
            try:
                sink.sock.shutdown(socket.SHUT_WR)
            except OSError as error:
                return sink.broken(error.errno or errno.EIO)
        return True

    @cython.cfunc
    def broken(self, code: cython.int) -> cython.bint:
        """Our socket is dead: the other side gets what it had said before, then a reset, as without us."""
        relay = self.relay
        if not relay.failing:
            relay.failing = True
            self.readable = True
            self.pump()
        if self.relay is not None:
            relay.fail(os.strerror(code))
        return False

    def dispose(self) -> None:
        """Let go of a pipe that still holds bytes."""
        if self.pipe is not None:
            if self.in_pipe:
                self.relay.pipes.discard(self.pipe)
            else:
                self.relay.pipes.give_back(self.pipe)
            self.pipe = None


class Relay:
    """Two streams of one flow. `owner` hears of its end: `owner.relay_ended(relay, error)`."""

    __slots__ = ("exit", "failing", "flow", "local", "loop", "owner", "pipes", "touched")

    def __init__(
        self,
        owner: Any,
        loop: Loop,
        pipes: Pipes,
        flow: Any,
        local: SocketType,
        exit_: SocketType,
        *,
        ahead_up: bytes = b"",
        ahead_down: bytes = b"",
        local_readable: bool = True,
        exit_readable: bool = True,
    ) -> None:
        self.owner = owner
        self.loop = loop
        self.pipes = pipes
        self.flow = flow
        self.touched = loop.now
        self.failing = False
        self.local = Stream(self, local, ahead_up, local_readable)
        self.exit = Stream(self, exit_, ahead_down, exit_readable)
        self.local.join(self.exit)
        self.exit.join(self.local)

    @property
    def up(self) -> int:
        """Bytes from the application that the exit has taken."""
        return self.local.moved

    @property
    def down(self) -> int:
        """Bytes from the exit that the application's side has taken."""
        return self.exit.moved

    def start(self) -> None:
        """Begin; both sockets are in the loop already, with these streams as their handlers."""
        if self.local.start():
            self.exit.start()

    def touch(self) -> None:
        """Something moved."""
        self.touched = self.loop.now

    def want_write(self, fd: int) -> None:
        """Watch a socket for room."""
        self.loop.rearm(fd, ALL)

    def again(self, stream: Stream) -> None:
        """A stream has had its turn: it goes on after the others."""
        self.loop.soon(stream.start)

    def fail(self, error: str) -> None:
        """Reset both sides."""
        for stream in (self.local, self.exit):
            try:
                stream.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            except OSError:
                pass
        self.end(error)

    def end(self, error: str) -> None:
        """Close both sides."""
        for stream in (self.local, self.exit):
            stream.dispose()
            self.loop.close(stream.sock)
        self.owner.relay_ended(self, error)
        self.local.release()
        self.exit.release()
