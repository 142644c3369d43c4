"""The engine's listener, dialler and relay behind the kernel's REDIRECT: the engine without TUN and NAT.

Run as `python -m zignet.bench.redirect MARK PORT-FILE [SOCKS-HOST SOCKS-PORT]`; the port it listens on is
written to the file. Where a connection wanted to go is asked of the kernel (SO_ORIGINAL_DST).
"""

from __future__ import annotations

import signal
import socket
import sys
from functools import partial
from pathlib import Path
from socket import SocketType
from typing import Any

from nat.dial import Attempt, Dialler
from nat.exit import Dial, Reason, Target
from nat.listener import Listener
from nat.loop import EDGE, READ, Loop
from nat.relay import RESET_ON_CLOSE, Pipes, Relay
from nat.sockets import Underlay
from zignet.exits import Direct, Socks5

__all__ = ["Redirected", "main"]

SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h
LOOPBACK = bytes((127, 0, 0, 1))
PATIENCE_S = 30.0


class Redirected:
    """Takes what the kernel redirects, and relays it through the exit."""

    def __init__(self, loop: Loop, mark: int, exit_: Direct | Socks5) -> None:
        self.loop = loop
        self.exit = exit_
        self.pipes = Pipes()
        self.dialler = Dialler(loop, Underlay(mark), PATIENCE_S)
        self.port = Listener(loop, LOOPBACK, self.accepted).port

    def accepted(self, near: SocketType, host: str, port: int) -> None:
        """The listener has a connection."""
        target = near.getsockopt(socket.IPPROTO_IP, SO_ORIGINAL_DST, 16)
        plan = self.exit.tcp(Target(target[4:8], int.from_bytes(target[2:4], "big")))
        assert isinstance(plan, Dial)
        self.dialler.dial(plan, partial(self.stood, near), partial(self.failed, near))

    def stood(self, near: SocketType, attempt: Attempt, rest: bytes) -> None:
        """The far side stands: relay."""
        assert attempt.sock is not None
        relay = Relay(
            self,
            self.loop,
            self.pipes,
            None,
            near,
            attempt.sock,
            ahead_down=rest,
            local_readable=False,
            exit_readable=attempt.readable,
        )
        self.loop.hand_over(attempt.sock.fileno(), relay.exit)
        self.loop.watch(near.fileno(), relay.local, READ | EDGE)
        relay.start()

    def failed(self, near: SocketType, reason: Reason, message: str) -> None:
        """It does not: the application sees a reset."""
        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.loop.close(near)

    def relay_ended(self, relay: Any, error: str) -> None:
        """Both sides are closed."""


def main(arguments: list[str]) -> None:
    """Relay until SIGTERM."""
    mark, port_file, *proxy = arguments
    exit_ = Socks5("tokyo", socket.inet_aton(proxy[0]), int(proxy[1])) if proxy else Direct()
    loop = Loop()
    Path(port_file).write_text(str(Redirected(loop, int(mark), exit_).port))
    signal.signal(signal.SIGTERM, lambda *_: loop.stop())
    loop.run()


if __name__ == "__main__":
    main(sys.argv[1:])
