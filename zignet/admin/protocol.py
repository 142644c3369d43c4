"""One connection to the API: who may make it, how many there are, and how long each may take."""

from __future__ import annotations

import socket
from asyncio import BaseTransport
from typing import Any

import zignet.admin.lean  # noqa: F401

# isort: split
from sanic.http import Http, Stage
from sanic.server import HttpProtocol

from zignet.admin.guard import Arrival

__all__ = ["MOST", "AdminProtocol"]

MOST = 64  # connections of one listening socket
BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 40\r\n"
    b'Retry-After: 1\r\nConnection: close\r\n\r\n{"error":"too many connections at once"}'
)


class AdminHttp(Http):
    """Sanic's, which can also report a target that is no URL."""

    __slots__ = ()

    def create_empty_request(self) -> None:
        """What stands for a request that was none, so that its error can be answered."""
        self.url = None
        super().create_empty_request()


class AdminProtocol(HttpProtocol):
    """Sanic's, for this host alone, and with deadlines for whole requests and not for each byte of them."""

    HTTP_CLASS = AdminHttp
    __slots__ = ("arrival",)

    def connection_made(self, transport: Any) -> None:
        """Somebody has connected: refused before a byte is read, unless it is a program of this host."""
        self.arrival = _arrival(transport)
        if not _is_from_here(transport, self.arrival):
            self.transport = transport
            transport.abort()
        elif len(self.connections) >= MOST:
            self.transport = transport
            transport.write(BUSY)
            transport.close()
        else:
            super().connection_made(transport)
            assert self.conn_info is not None
            self.conn_info.ctx.arrival = self.arrival

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        if self.conn_info is not None:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """The time runs from a request's first byte: more bytes now and then do not keep it alive."""
        if self.conn_info is None:
            return
        before = self._time
        super().data_received(data)
        if self.http is not None and self.http.stage is not Stage.IDLE:
            self._time = before

    def check_timeouts(self) -> None:
        """As Sanic's, also where a request asks to become a WebSocket, which none does here."""
        if self.http is not None:
            self.http.upgrade_websocket = False
        super().check_timeouts()


def _arrival(transport: BaseTransport) -> Arrival:
    local = transport.get_extra_info("sockname")
    return Arrival(local[0], local[1]) if isinstance(local, tuple) else Arrival()


def _is_from_here(transport: BaseTransport, arrival: Arrival) -> bool:
    """Whether the other end is this host: only a host that talks to itself has the address that it talks to.

    A peer's packets do reach our ZigNet address, but from the peer's.
    """
    if arrival.unix:
        sock: socket.socket = transport.get_extra_info("socket")
        return sock.family == socket.AF_UNIX
    peer = transport.get_extra_info("peername")
    return isinstance(peer, tuple) and peer[0] == arrival.address
