"""Queries to the system's name servers: as many at once as is good, and first to those that answer."""

from __future__ import annotations

from nat.loop import Loop
from nat.sockets import Underlay
from zignet.dns.query import Done, Query
from zignet.dns.upstreams import Server, Upstreams
from zignet.dns.wire import BadMessage, question_of

__all__ = ["MOST_OUTSTANDING", "Exchange", "Query"]

MOST_OUTSTANDING = 1024  # queries at once: a few descriptors each, and somebody may ask for anything
DEMOTED_S = 10.0  # how long a server that said nothing comes last


class Exchange:
    """All queries to the upstreams, at most `MOST_OUTSTANDING` at once."""

    def __init__(self, loop: Loop, underlay: Underlay, upstreams: Upstreams) -> None:
        self.loop = loop
        self.underlay = underlay
        self.upstreams = upstreams
        self._outstanding: set[Query] = set()
        self._demoted: dict[Server, float] = {}
        self.asked = self.refused = 0

    def __len__(self) -> int:
        return len(self._outstanding)

    def ask(
        self, message: bytes, done: Done, *, tcp: bool = False, keep_truncated: bool = False
    ) -> Query | None:
        """Send a query with one question on. `done` gets the answer under the query's own id, or None; perhaps before
        this returns. None: the query is none, or too many are outstanding; then `done` was called as well.

        `keep_truncated`: a truncated answer is an answer, since whoever asked comes again by TCP.
        """
        try:
            end = question_of(message).end
        except BadMessage:
            done(None)
            return None
        now = self.loop.now
        servers = sorted(self.upstreams.servers(now), key=lambda server: self._demoted.get(server, 0.0) > now)
        if not servers or len(self._outstanding) >= MOST_OUTSTANDING:
            self.refused += 1
            done(None)
            return None
        self.asked += 1
        query = Query(self, message, end, servers, tcp, keep_truncated, done)
        self._outstanding.add(query)
        query.advance()
        return query

    def forget(self, query: Query) -> None:
        """It is over."""
        self._outstanding.discard(query)

    def demote(self, server: Server) -> None:
        """It said nothing: others come first for a while."""
        self._demoted[server] = self.loop.now + DEMOTED_S
        if len(self._demoted) > 64:  # servers of networks that this host was in
            self._demoted.clear()

    def promote(self, server: Server) -> None:
        """It answers."""
        self._demoted.pop(server, None)

    def close(self) -> None:
        """Ask nobody any more."""
        for query in list(self._outstanding):
            query.cancel()
