"""The relay behind the kernel's REDIRECT, for comparison: the engine without its TUN and its NAT.

Run as `python -m zignet.bench.redirect PORT MARK [SOCKS-HOST SOCKS-PORT]`. Where a connection wanted to go is
asked of the kernel (SO_ORIGINAL_DST).
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
from socket import SocketType

from nat.loop import READ, WRITE, Handler, Loop
from zignet.lab.tunnel import BOTH, Tunnel, reset

__all__ = ["main"]

SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h
STREAM = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
GREETING = b"\x05\x01\x00"
REPLY_SIZE = 10  # of a SOCKS5 reply that names an IPv4 address


class Listener(Handler):
    """Accepts what the kernel redirects."""

    def __init__(self, loop: Loop, port: int, mark: int, exit_: tuple[str, int] | None) -> None:
        self.loop = loop
        self.mark = mark
        self.exit = exit_
        self.socket = SocketType(socket.AF_INET, STREAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.bind(("127.0.0.1", port))
        self.socket.listen(4096)
        loop.watch(self.socket.fileno(), self, READ)

    def on_event(self, mask: int) -> None:
        """Accept all that wait, and dial for each."""
        for _ in range(64):
            try:
                fd, _ = self.socket._accept()  # type: ignore[attr-defined]
            except BlockingIOError:
                return
            os.set_blocking(fd, False)
            near = SocketType(fileno=fd)
            target = near.getsockopt(socket.IPPROTO_IP, SO_ORIGINAL_DST, 16)
            far = SocketType(socket.AF_INET, STREAM)
            far.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self.mark)
            far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            address = self.exit or (socket.inet_ntoa(target[4:8]), int.from_bytes(target[2:4], "big"))
            if far.connect_ex(address) not in (0, errno.EINPROGRESS):
                reset(near)
                near.close()
                far.close()
                continue
            dialling = Dialling(self.loop, near, far, target[4:8] + target[2:4] if self.exit else b"")
            self.loop.watch(far.fileno(), dialling, BOTH)


class Dialling(Handler):
    """Connecting, and the SOCKS5 handshake where there is one. `target` is empty for direct."""

    def __init__(self, loop: Loop, near: SocketType, far: SocketType, target: bytes) -> None:
        self.loop = loop
        self.near = near
        self.far = far
        self.target = target
        self.stage = 0

    def on_event(self, mask: int) -> None:
        """The next step."""
        try:
            if self.stage == 0 and mask & WRITE:
                self.far.getpeername()  # raises when the connection failed
                self.stage = 1
                if not self.target:
                    self.begin()
                    return
                self.far.send(GREETING)
            elif self.stage == 1 and mask & READ:
                self.far.recv(2)
                self.far.send(b"\x05\x01\x00\x01" + self.target)
                self.stage = 2
            elif self.stage == 2 and mask & READ and self.far.recv(REPLY_SIZE)[1] == 0:
                self.begin()
        except BlockingIOError:
            return
        except (OSError, IndexError):
            self.abort()

    def begin(self) -> None:
        """The far side stands: relay."""
        self.loop.watch(self.near.fileno(), self, BOTH)
        Tunnel(self.loop, self.near, self.far)

    def abort(self) -> None:
        """It does not: the application sees a reset."""
        reset(self.near)
        self.loop.close(self.near)
        self.loop.close(self.far)


def main(arguments: list[str]) -> None:
    """Relay until SIGTERM."""
    port, mark, *exit_ = arguments
    loop = Loop()
    Listener(loop, int(port), int(mark), (exit_[0], int(exit_[1])) if exit_ else None)
    signal.signal(signal.SIGTERM, lambda *_: loop.stop())
    loop.run()


if __name__ == "__main__":
    main(sys.argv[1:])
