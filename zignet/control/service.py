"""The control socket in the packet loop: one handler for the listener, one for each connection."""

from __future__ import annotations

import socket
from typing import Any

from nat.loop import ERROR, READ, WRITE, Loop
from nat.loop import Handler as LoopHandler
from zignet.control.session import ControlSession, Handler

__all__ = ["Adopted", "ControlService"]

CONNECTIONS = 32  # at once; more wait in the kernel's backlog
CHUNK = 64 << 10  # bytes
LOOK_AGAIN_S = 0.05  # for an answer that takes a while
LINES_PER_TURN = 8  # of answers, before the packets have their turn


class ControlService(LoopHandler):
    """Accepts connections on the unix socket that a `Place` made."""

    def __init__(self, loop: Loop, listener: socket.socket, handler: Handler) -> None:
        self._loop = loop
        self._listener = listener
        self._handler = handler
        self._open: set[Any] = set()
        loop.watch(listener.fileno(), self, READ)

    def on_event(self, mask: int) -> None:
        """Somebody calls."""
        while len(self._open) < CONNECTIONS:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setblocking(False)
            self._open.add(Connection(self._loop, connection, ControlSession(self._handler), self._closed))
        self._loop.rearm(self._listener.fileno(), 0)

    def _closed(self, connection: Connection) -> None:
        if len(self._open) == CONNECTIONS:
            self._loop.rearm(self._listener.fileno(), READ)
        self._open.discard(connection)

    def close(self) -> None:
        """Hang up. The listener is its `Place`'s."""
        self._loop.forget(self._listener.fileno())
        for connection in list(self._open):
            connection.close()


class Connection(LoopHandler):
    """One connection."""

    def __init__(self, loop: Loop, sock: socket.socket, session: ControlSession, closed: Any) -> None:
        self._loop = loop
        self._sock = sock
        self._session = session
        self._closed = closed
        self._mask = READ
        loop.watch(sock.fileno(), self, READ)

    def on_event(self, mask: int) -> None:
        """Questions, or room for answers."""
        if mask & ERROR:  # told again and again, whatever is watched: nobody is there to be answered
            self.close()
            return
        try:
            if mask & READ and self._session.wants_read:
                data = self._sock.recv(CHUNK)
                if not data:
                    self.close()
                    return
                self._session.receive(data)
            for _ in range(LINES_PER_TURN):
                if not self._session.wants_write:
                    break
                pending = self._session.pending()
                if pending:
                    self._session.sent(self._sock.send(pending))
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self._session.waiting:
            self._loop.call_later(LOOK_AGAIN_S, self._resume)
        elif self._session.closing and not self._session.wants_write:
            self.close()
            return
        wanted = (WRITE if self._session.wants_write else 0) | (READ if self._session.wants_read else 0)
        if wanted != self._mask:
            self._mask = wanted
            self._loop.rearm(self._sock.fileno(), wanted)

    def _resume(self) -> None:
        if self._sock.fileno() >= 0:
            self._session.resume()
            self.on_event(WRITE)

    def abort(self) -> None:
        """A fault in an answer: hang up."""
        self.close()

    def close(self) -> None:
        """Hang up."""
        if self._sock.fileno() >= 0:
            self._loop.close(self._sock)
            self._closed(self)


class Adopted(Connection):
    """A connection that nobody had to call for: the control process's end is handed to it at its start."""

    def __init__(
        self, loop: Loop, sock: socket.socket, handler: Handler, closed: Any = lambda connection: None
    ) -> None:
        sock.setblocking(False)
        super().__init__(loop, sock, ControlSession(handler), closed)
