"""The server that applications ask: UDP and TCP on the loop, with `Answers` for what is known here.

    UDP     a datagram in, a datagram out; what is to be forwarded goes to the exchange, as many as that lets through
    TCP     queries behind each other (RFC 7766), answered as they are ready; a few connections, closed when idle

Whoever asks from another host gets nothing: a peer's packets reach this node's addresses as well.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections import Counter
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_address
from socket import SocketType
from typing import Any

from nat.loop import READ, Handler, Loop
from nat.sockets import AF_INET, AF_INET6, DATAGRAM, STREAM
from zignet.dns.answers import SERVICE, Answers, Forward, failure
from zignet.dns.exchange import Exchange, Query
from zignet.dns.stream import MOST_QUERY, Connection

__all__ = ["MOST_CONNECTIONS", "Server"]

log = logging.getLogger("zignet.dns")

RECEIVES_PER_EVENT = 64
MOST_CONNECTIONS = 128
IDLE_S = 20.0
FREE_PORTS = 16  # tried, where any that is free will do
RECEIVE_BUFFER = 1 << 20

Address = tuple[str, int]


class Server:
    """All sockets of one node."""

    def __init__(
        self,
        loop: Loop,
        answers: Answers,
        exchange: Exchange,
        *,
        own: frozenset[str] = frozenset(),  # this node's addresses on the TUN
        strangers: tuple[IPv4Network | IPv6Network, ...] = (),  # where others have theirs: peers
    ) -> None:
        self.loop = loop
        self.answers = answers
        self.exchange = exchange
        self.dropped: Counter[str] = Counter()
        self._own = own
        self._strangers = strangers
        self._known: dict[str, bool] = {}  # senders' addresses, judged
        self.idle = loop.expiry(IDLE_S, Connection.end)
        self.connections = 0
        self.addresses: list[Address] = []
        self._sockets: list[Any] = []

    def listen(self, host: str, port: int) -> int:
        """Answer at this address too, by both protocols; the port, a free one if it was 0. Raises OSError."""
        for again in range(1 if port else FREE_PORTS, 0, -1):
            try:
                datagrams, stream = _bound(host, port)
                break
            except OSError:
                if again == 1:
                    raise  # else: the port was free for one of the two only
        found: int = stream.getsockname()[1]
        self.loop.watch(datagrams.fileno(), Datagrams(self, datagrams), READ)
        self.loop.watch(stream.fileno(), Door(self, stream), READ)
        self._sockets += [datagrams, stream]
        self.addresses.append((host, found))
        return found

    def ask(
        self, how: Forward, query: bytes, done: Callable[[bytes], None], *, tcp: bool = False
    ) -> Query | None:
        """Have others answer a query; `done` gets what to answer, perhaps before this returns. See `Exchange.ask`."""
        if how is SERVICE:
            message = self.answers.service_query(query)
            return self.exchange.ask(
                message, lambda answer: done(self.answers.service(query, answer, tcp)), tcp=tcp
            )
        return self.exchange.ask(
            query,
            lambda answer: done(failure(query) if answer is None else answer),
            tcp=tcp,
            keep_truncated=not tcp,
        )

    def is_stranger(self, host: str) -> bool:
        """Whether a query comes from another host."""
        known = self._known.get(host)
        if known is None:
            address = ip_address(host.partition("%")[0])
            known = host not in self._own and any(
                network.version == address.version and address in network for network in self._strangers
            )
            if len(self._known) > 1024:
                self._known.clear()
            self._known[host] = known
        return known

    def close(self) -> None:
        """Answer no more."""
        for sock in self._sockets:
            self.loop.close(sock)
        self._sockets.clear()
        while (connection := self.idle.oldest()) is not None:
            connection.end()


def _bound(host: str, port: int) -> tuple[SocketType, SocketType]:
    family = AF_INET6 if ":" in host else AF_INET
    stream = SocketType(family, STREAM, 0)
    datagrams = SocketType(family, DATAGRAM, 0)
    try:
        if family == AF_INET6:
            for sock in (datagrams, stream):
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        stream.bind((host, port))
        datagrams.bind((host, stream.getsockname()[1]))
        stream.listen(64)
    except OSError:
        datagrams.close()
        stream.close()
        raise
    return datagrams, stream


class Datagrams(Handler):
    """One UDP socket."""

    __slots__ = ("_server", "_sock")

    def __init__(self, server: Server, sock: SocketType) -> None:
        self._server = server
        self._sock = sock

    def on_event(self, mask: int) -> None:
        """Queries wait."""
        server = self._server
        receive, send = self._sock.recvfrom, self._sock.sendto
        answer = server.answers.answer
        known = server._known
        now = server.loop.now
        for _ in range(RECEIVES_PER_EVENT):
            try:
                query, sender = receive(MOST_QUERY)
            except BlockingIOError:
                return
            except OSError:
                continue
            if known.get(sender[0]) is not False and server.is_stranger(sender[0]):
                server.dropped["from another host"] += 1
                continue
            made = answer(query, now)
            if isinstance(made, bytes):  # first: it is what there is most of
                try:
                    send(made, sender)
                except OSError as error:
                    server.dropped[f"not sent: {error.strerror}"] += 1
            elif made is not None:
                server.ask(made, query, partial(self._forwarded, sender))

    def _forwarded(self, sender: Any, answer: bytes) -> None:
        if self._sock.fileno() >= 0:
            try:
                self._sock.sendto(answer, sender)
            except OSError as error:
                self._server.dropped[f"not sent: {error.strerror}"] += 1


class Door(Handler):
    """One listening socket."""

    __slots__ = ("_server", "_sock")

    def __init__(self, server: Server, sock: SocketType) -> None:
        self._server = server
        self._sock = sock

    def on_event(self, mask: int) -> None:
        """Connections wait."""
        server = self._server
        for _ in range(16):
            try:
                fd, peer = self._sock._accept()  # type: ignore[attr-defined]
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    server.loop.rearm(self._sock.fileno(), 0)
                    server.loop.call_later(0.1, self._resume)
                    return
                continue
            sock = SocketType(fileno=fd)
            sock.setblocking(False)
            if server.is_stranger(peer[0]):
                server.dropped["from another host"] += 1
                sock.close()
                continue
            if (
                server.connections >= MOST_CONNECTIONS
            ):  # the one that has said nothing for the longest makes room
                oldest = server.idle.oldest()
                if oldest is not None:
                    oldest.end()
            connection = Connection(server, sock)
            server.loop.watch(fd, connection, READ)

    def _resume(self) -> None:
        if self._sock.fileno() >= 0:
            self._server.loop.rearm(self._sock.fileno(), READ)
