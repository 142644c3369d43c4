"""Two sockets made one, for the lab's proxies: bytes both ways, half-close and reset carried over.

Independent of the engine's relay on purpose, so that a fault in one shows against the other. Short
conversations go through `recv` and `send`; a direction that has carried `SPLICE_AFTER` gets a pipe and its
bytes stay in the kernel, so that the proxy is not what a bench measures.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from socket import SocketType

from nat.loop import EDGE, READ, WRITE, Handler, Loop

__all__ = ["BOTH", "GONE", "Side", "Tunnel", "reset"]

BOTH: int = READ | WRITE | EDGE
GONE: int = READ & ~1 | 0x18  # EPOLLRDHUP, EPOLLERR, EPOLLHUP: read on to the end

CHUNK = 64 * 1024  # bytes of one recv
SPLICE_AFTER = 128 * 1024  # bytes of one direction
PIPE_SIZE = 1 << 20
TURN = 8  # reads of one direction before others get their turn
SPLICE_FLAGS = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE
RST_ON_CLOSE = struct.pack("ii", 1, 0)


def reset(end: SocketType) -> None:
    """Make the coming close a RST."""
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
    except OSError:
        pass  # the connection is gone already


class Side(Handler):
    """One of the two sockets, and the bytes that were read from it and not yet sent to the other."""

    __slots__ = ("carried", "ended", "held", "in_pipe", "other", "pipe", "socket", "told", "tunnel")

    def __init__(self, end: SocketType, tunnel: Tunnel) -> None:
        self.socket = end
        self.tunnel = tunnel
        self.other: Side = self
        self.held = b""
        self.pipe: tuple[int, int] | None = None
        self.in_pipe = 0
        self.carried = 0
        self.ended = False  # nothing more will be read here
        self.told = False  # and the other side has had its FIN

    def on_event(self, mask: int) -> None:
        """Read what there is, and send what could not be sent before."""
        if mask & READ or mask & GONE:
            self.pump(bool(mask & GONE))
        other = self.other
        if mask & WRITE and (other.held or other.in_pipe or (other.ended and not other.told)):
            other.pump(True)

    def abort(self) -> None:
        """A fault of the proxy's own: both ends are reset."""
        self.tunnel.fail()

    def pump(self, to_the_end: bool) -> None:
        """Carry bytes from here to the other side until either would block."""
        if self.tunnel.closed:
            return
        try:
            for _ in range(TURN):
                if not self.flush():
                    return
                if self.ended:
                    self.finish()
                    return
                if self.carried < SPLICE_AFTER:
                    data = self.socket.recv(CHUNK)
                    self.held = data
                    count = len(data)
                else:
                    count = self.fill()
                self.carried += count
                self.ended = count == 0
                if not to_the_end and 0 < count < CHUNK and self.pipe is None:
                    self.flush()  # it was all there was: the next bytes come with an edge of their own
                    return
        except BlockingIOError:
            return
        except OSError:
            self.tunnel.fail()
            return
        self.tunnel.loop.soon(lambda: self.pump(True))

    def fill(self) -> int:
        """Move bytes from the socket into the pipe."""
        if self.pipe is None:
            self.pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            fcntl.fcntl(self.pipe[1], fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        count = os.splice(self.socket.fileno(), self.pipe[1], PIPE_SIZE, flags=SPLICE_FLAGS)
        self.in_pipe += count
        return count

    def flush(self) -> bool:
        """Send what is held; False when the other side takes no more now."""
        other = self.other.socket
        try:
            while self.held:
                self.held = self.held[other.send(self.held) :]
            while self.in_pipe and self.pipe is not None:
                self.in_pipe -= os.splice(self.pipe[0], other.fileno(), self.in_pipe, flags=SPLICE_FLAGS)
        except BlockingIOError:
            return False
        return True

    def finish(self) -> None:
        """Everything was carried: pass the FIN on, and close when both directions are over."""
        if not self.told:
            self.told = True
            if self.other.told:
                self.tunnel.close()
            else:
                self.other.socket.shutdown(socket.SHUT_WR)


class Tunnel:
    """The pair. Both sockets are non-blocking and already watched by the loop with `BOTH`."""

    __slots__ = ("closed", "left", "loop", "right")

    def __init__(self, loop: Loop, left: SocketType, right: SocketType) -> None:
        self.loop = loop
        self.closed = False
        self.left = Side(left, self)
        self.right = Side(right, self)
        self.left.other = self.right
        self.right.other = self.left
        loop.hand_over(left.fileno(), self.left)
        loop.hand_over(right.fileno(), self.right)

    def fail(self) -> None:
        """One end was reset: so is the other."""
        reset(self.left.socket)
        reset(self.right.socket)
        self.close()

    def close(self) -> None:
        """Let go of both sockets and the pipes."""
        if self.closed:
            return
        self.closed = True
        for side in (self.left, self.right):
            self.loop.close(side.socket)
            if side.pipe is not None:
                for end in side.pipe:
                    self.loop.close(end)
