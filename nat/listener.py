"""The loopback listener where the kernel terminates the applications' TCP."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from socket import SocketType

from nat.loop import READ, Handler, Loop
from nat.sockets import STREAM, family_of, sockaddr

__all__ = ["Listener"]

log = logging.getLogger("zignet.listener")

BACKLOG = 65_535  # the kernel takes the smaller of this and net.core.somaxconn
ACCEPTS_PER_EVENT = 64
PAUSE_S = 0.1  # when there are no descriptors left
TCP_FASTOPEN_NO_COOKIE = 34  # linux/tcp.h, Linux 4.15
FASTOPEN_QUEUE = 1024  # connections that have brought data with their SYN, and are not confirmed yet


class Listener(Handler):
    """One listening socket per address family. `accepted(socket, peer address, peer port)` gets its connections."""

    def __init__(self, loop: Loop, address: bytes, accepted: Callable[[SocketType, str, int], None]) -> None:
        self._loop = loop
        self._accepted = accepted
        self.family = family_of(address)
        self.address = address
        self._sock = sock = SocketType(self.family, STREAM, 0)
        try:
            # Both are inherited by what is accepted: one system call less for each flow.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._take_early_data(sock)
            sock.bind(sockaddr(address, 0))
            sock.listen(BACKLOG)
        except OSError:
            sock.close()
            raise
        self.port: int = sock.getsockname()[1]
        loop.watch(sock.fileno(), self, READ)

    @staticmethod
    def _take_early_data(sock: SocketType) -> None:
        """Data in the SYN (RFC 7413), where the system allows servers that (net.ipv4.tcp_fastopen).

        No cookie: it would be for the alias, and each flow has another. It is there against forged senders, and
        whoever reaches this listener is on this host, or a peer whose packet was sealed.
        """
        with suppress(OSError):  # an older kernel: the data comes once more, after the handshake
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, FASTOPEN_QUEUE)
            sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, 1)

    def on_event(self, mask: int) -> None:
        """Connections wait."""
        accept = self._sock._accept  # type: ignore[attr-defined]  # the C method: without the wrapper object of socket.socket.accept
        for _ in range(ACCEPTS_PER_EVENT):
            try:
                fd, peer = accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._pause(error)
                    return
                continue  # ECONNABORTED: it has gone again
            sock = SocketType(self.family, STREAM, 0, fd)
            sock.setblocking(False)
            self._accepted(sock, peer[0], peer[1])

    def _pause(self, error: OSError) -> None:
        """A level-triggered listener with nothing to accept into would spin."""
        log.error(
            "connections wait in the kernel: %s (raise LimitNOFILE, or lower limits.flows)", error.strerror
        )
        self._loop.rearm(self._sock.fileno(), 0)
        self._loop.call_later(PAUSE_S, self._resume)

    def _resume(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.rearm(self._sock.fileno(), READ)

    def close(self) -> None:
        """Stop listening."""
        self._loop.close(self._sock)
