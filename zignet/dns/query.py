"""One query to name servers, try by try, until one of them answers.

Each try has a socket of its own, and with it a random port; the socket is connected, so the kernel passes only what
comes from that server. Each try has a random id, and an answer counts only with the id and the question as they were
sent. A silent server is asked beside the next one; one that refuses, or says that it has failed, ends its try at once.
A truncated answer is asked for again by TCP.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from socket import SocketType
from typing import TYPE_CHECKING

from nat.loop import ERROR, READ, WRITE, Handler, Loop, Timer
from nat.sockets import AF_INET, AF_INET6, Underlay
from zignet.dns.upstreams import Server
from zignet.dns.wire import REFUSED, SERVFAIL, is_answer_to

if TYPE_CHECKING:
    from zignet.dns.exchange import Exchange

__all__ = ["Done", "Query"]

MOST_TRIES = 6
MOST_AT_ONCE = 3  # tries of one query, beside each other
PATIENCE_S = (1.0, 2.5)  # with one server, in the first round and after it
MOST_STRAYS = 64  # wrong answers to one try: somebody guesses
TCP_PATIENCE_S = 5.0
MAX_MESSAGE = 65_535

Done = Callable[[bytes | None], None]


class Query:
    """A question under way."""

    __slots__ = (
        "_done",
        "_end",
        "_exchange",
        "_keep_truncated",
        "_message",
        "_next",
        "_over",
        "_soft",
        "_timer",
        "_tries",
        "_way",
    )

    def __init__(
        self,
        exchange: Exchange,
        message: bytes,
        end: int,
        servers: list[Server],
        tcp: bool,
        keep_truncated: bool,
        done: Done,
    ) -> None:
        self._exchange = exchange
        self._message = message
        self._end = end
        self._done = done
        self._keep_truncated = keep_truncated
        self._way: list[tuple[Server, bool, float]] = [
            (server, tcp, patience) for patience in PATIENCE_S for server in servers
        ][:MOST_TRIES]
        self._next = 0
        self._tries: dict[Try, None] = {}  # in the order of their starts
        self._timer: Timer | None = None
        self._soft: bytes | None = None  # an answer that another server may better
        self._over = False

    def cancel(self) -> None:
        """The answer is no longer wanted."""
        self._stop()

    def advance(self) -> None:
        """Ask the next server."""
        while self._next < len(self._way) and not self._over:
            server, tcp, patience_s = self._way[self._next]
            self._next += 1
            if self._start(server, tcp):
                if self._timer is not None:
                    self._timer.cancel()
                self._timer = self.loop.call_later(TCP_PATIENCE_S if tcp else patience_s, self._silent)
                return
        if not self._tries:
            self._finish(self._soft)

    def _start(self, server: Server, tcp: bool) -> bool:
        attempt = (TcpTry if tcp else UdpTry)(self, server, os.urandom(2) + self._message[2:])
        if attempt.start():
            self._tries[attempt] = None
            if len(self._tries) > MOST_AT_ONCE:
                self._drop(next(iter(self._tries)))
            return True
        return False

    def _silent(self) -> None:
        self._timer = None
        self._exchange.demote(self._way[self._next - 1][0])
        if self._next >= len(self._way):
            self._finish(self._soft)
        else:
            self.advance()

    @property
    def is_over(self) -> bool:
        """Whether it was answered, or is no longer wanted."""
        return self._over

    @property
    def loop(self) -> Loop:
        """Of the exchange."""
        return self._exchange.loop

    @property
    def underlay(self) -> Underlay:
        """Of the exchange."""
        return self._exchange.underlay

    def is_answer(self, sent: bytes, answer: bytes) -> bool:
        """Whether a server may have sent this to what was sent."""
        return is_answer_to(sent, self._end, answer)

    def answered(self, attempt: Try, answer: bytes) -> None:
        """A server has answered."""
        self._exchange.promote(attempt.server)
        if answer[2] & 0x02 and isinstance(attempt, UdpTry) and not self._keep_truncated:
            self._drop(attempt)
            self._way.insert(self._next, (attempt.server, True, TCP_PATIENCE_S))
            self._soft = self._message[:2] + answer[2:]
            self.advance()
        elif answer[3] & 0x0F in (SERVFAIL, REFUSED):
            self._drop(attempt)
            self._soft = self._message[:2] + answer[2:]
            if not self._tries or self._next < len(self._way):
                self.advance()
        else:
            self._finish(self._message[:2] + answer[2:])

    def failed(self, attempt: Try) -> None:
        """A server can't be reached."""
        self._exchange.demote(attempt.server)
        self._drop(attempt)
        self.advance()

    def _drop(self, attempt: Try) -> None:
        self._tries.pop(attempt, None)
        attempt.close()

    def _finish(self, answer: bytes | None) -> None:
        if not self._over:
            self._stop()
            self._done(answer)

    def _stop(self) -> None:
        if self._over:
            return
        self._over = True
        self._exchange.forget(self)
        if self._timer is not None:
            self._timer.cancel()
        for attempt in self._tries:
            attempt.close()
        self._tries.clear()


class Try(Handler):
    """One server, one socket."""

    __slots__ = ("message", "query", "server", "sock")

    def __init__(self, query: Query, server: Server, message: bytes) -> None:
        self.query = query
        self.server = server
        self.message = message  # with an id of its own
        self.sock: SocketType | None = None

    def _family(self) -> int:
        return AF_INET6 if ":" in self.server[0] else AF_INET

    def close(self) -> None:
        """End it."""
        if self.sock is not None:
            self.query.loop.close(self.sock)
            self.sock = None

    def abort(self) -> None:
        """A fault in this code."""
        self.query.failed(self)


class UdpTry(Try):
    """By a datagram."""

    __slots__ = ("_strays",)

    def start(self) -> bool:
        """Send; False if there is no way."""
        self._strays = 0
        try:
            self.sock = sock = self.query.underlay.udp(self._family())
            sock.connect(self.server)
            sock.send(self.message)
        except OSError:
            self.close()
            return False
        self.query.loop.watch(sock.fileno(), self, READ)
        return True

    def on_event(self, mask: int) -> None:
        """An answer, or an ICMP error."""
        while self.sock is not None:
            try:
                answer = self.sock.recv(MAX_MESSAGE)
            except BlockingIOError:
                return
            except OSError:
                self.query.failed(self)
                return
            if self.query.is_answer(self.message, answer):
                self.query.answered(self, answer)
                return
            self._strays += 1
            if self._strays > MOST_STRAYS:
                self.query.failed(self)
                return


class TcpTry(Try):
    """By a connection (RFC 7766), for one query."""

    __slots__ = ("_in", "_out")

    def start(self) -> bool:
        """Connect; False if there is no way."""
        self._out = len(self.message).to_bytes(2, "big") + self.message
        self._in = bytearray()
        try:
            self.sock = sock = self.query.underlay.tcp(self._family())
            code = sock.connect_ex(self.server)
        except OSError as error:
            code = error.errno or errno.EIO
        if code not in (0, errno.EINPROGRESS):
            self.close()
            return False
        self.query.loop.watch(sock.fileno(), self, READ | WRITE)
        return True

    def on_event(self, mask: int) -> None:
        """Connected, or an answer, or the end."""
        sock = self.sock
        if sock is None:
            return
        try:
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise ConnectionError
            if self._out and mask & WRITE:
                self._out = self._out[sock.send(self._out) :]
                if not self._out:
                    self.query.loop.rearm(sock.fileno(), READ)
            if mask & (READ | ERROR):
                data = sock.recv(MAX_MESSAGE)
                if not data:
                    raise ConnectionError
                self._in += data
        except BlockingIOError:
            return
        except OSError:
            self.query.failed(self)
            return
        if len(self._in) >= 2 and len(self._in) - 2 >= (size := self._in[0] << 8 | self._in[1]):
            answer = bytes(self._in[2 : 2 + size])
            if self.query.is_answer(self.message, answer):
                self.query.answered(self, answer)
            else:
                self.query.failed(self)
