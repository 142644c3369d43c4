"""One TCP connection of somebody who asks for names (RFC 7766): queries one by one, answers as they are ready."""

from __future__ import annotations

from functools import partial
from socket import SocketType
from typing import TYPE_CHECKING

from nat.loop import READ, WRITE, Handler
from zignet.dns.answers import Forward
from zignet.dns.query import Query

if TYPE_CHECKING:
    from zignet.dns.server import Server

__all__ = ["MOST_QUERY", "Connection"]

MOST_QUERY = 4096  # bytes
MOST_UNANSWERED = 64  # queries of one connection
MOST_UNSENT = 1 << 18  # bytes of answers that wait for a reader


class Connection(Handler):
    """One TCP connection."""

    __slots__ = ("_in", "_mask", "_out", "_pending", "_server", "_sock", "_theirs_ended", "touched")

    def __init__(self, server: Server, sock: SocketType) -> None:
        self._server = server
        self._sock: SocketType | None = sock
        self._in = bytearray()
        self._out = bytearray()
        self._pending: set[Query] = set()
        self._mask = READ
        self._theirs_ended = False
        self.touched = server.loop.now
        server.connections += 1
        server.idle.add(self)

    def on_event(self, mask: int) -> None:
        """Queries, or room for answers."""
        if self._sock is None:
            return
        self.touched = self._server.loop.now
        try:
            if mask & ~WRITE:
                data = self._sock.recv(65_536)
                if not data:
                    self._theirs_ended = True
                self._in += data
        except BlockingIOError:
            pass
        except OSError:
            self.end()
            return
        self._go_on()

    def abort(self) -> None:
        """A fault in this code."""
        self.end()

    def end(self) -> None:
        """Close it."""
        if self._sock is not None:
            self._server.idle.discard(self)
            self._server.connections -= 1
            self._server.loop.close(self._sock)
            self._sock = None
            for query in list(self._pending):
                query.cancel()
            self._pending.clear()

    def _is_full(self) -> bool:
        return len(self._pending) >= MOST_UNANSWERED or len(self._out) >= MOST_UNSENT

    def _go_on(self) -> None:
        """Answer what is whole, as far as answers can be sent."""
        while self._answer_some() and self._sock is not None:
            self._flush()
        self._flush()
        self._watch()

    def _answer_some(self) -> bool:
        """Answer until there is nothing more, or too much to be sent. Whether there was something."""
        at = 0
        while len(self._in) - at >= 2 and not self._is_full() and self._sock is not None:
            size = self._in[at] << 8 | self._in[at + 1]
            if size > MOST_QUERY:
                self.end()
                break
            if len(self._in) - at < 2 + size:
                break
            query = bytes(self._in[at + 2 : at + 2 + size])
            at += 2 + size
            self._answer(query)
        del self._in[:at]
        return at > 0

    def _answer(self, query: bytes) -> None:
        made = self._server.answers.answer(query, self._server.loop.now, tcp=True)
        if isinstance(made, Forward):
            pending: list[Query] = []
            asked = self._server.ask(made, query, partial(self._forwarded, pending), tcp=True)
            if asked is not None and not asked.is_over:
                pending.append(asked)
                self._pending.add(asked)
        elif made is None:
            self.end()  # not DNS
        else:
            self._put(made)

    def _forwarded(self, pending: list[Query], answer: bytes) -> None:
        self._pending.difference_update(pending)
        self._put(answer)
        if pending and self._sock is not None:  # else: `_go_on` is at work
            self._go_on()

    def _put(self, answer: bytes) -> None:
        self._out += len(answer).to_bytes(2, "big") + answer

    def _flush(self) -> None:
        sock = self._sock
        if sock is None:
            return
        if self._out:
            try:
                del self._out[: sock.send(self._out)]
            except BlockingIOError:
                pass
            except OSError:
                self.end()

    def _watch(self) -> None:
        """What there is to wait for; nothing is read while what was read before waits."""
        sock = self._sock
        if sock is None:
            return
        if self._theirs_ended and not self._out and not self._pending:
            self.end()
            return
        wants_more = not self._theirs_ended and not self._is_full() and len(self._in) < 2 + MOST_QUERY
        mask = (READ if wants_more else 0) | (WRITE if self._out else 0)
        if mask != self._mask:
            self._mask = mask
            self._server.loop.rearm(sock.fileno(), mask)
