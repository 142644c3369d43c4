"""Questions to the packet process, in asyncio: `await node.ask({"do": "status"})`.

The packet process hands over a few connections of its control service. Each carries one question at a time, so that
one that takes a while (a ping, a reload) holds up no other; what finds none free waits its turn.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections import deque
from collections.abc import Iterable
from typing import Any, Self, cast

from zignet.control.client import Broken, Declined
from zignet.control.session import LINE_LIMIT

__all__ = ["NodeClient"]

TIMEOUT_S = 10.0
MOST_WAITING = 1_024  # questions
ANSWER_LIMIT = 64 << 20  # bytes of all lines of one answer: 100,000 flows are 40 MB


class NodeClient:
    """The packet process, as the control process sees it."""

    def __init__(self) -> None:
        self._idle: list[Connection] = []
        self._all: list[Connection] = []
        self._waiting: deque[asyncio.Future[Connection]] = deque()
        self.gone = (
            asyncio.Event()
        )  # the packet process has closed a connection: it is going, or it is done with us

    @classmethod
    async def open(cls, sockets: Iterable[socket.socket]) -> Self:
        """Takes over connected unix sockets, in the running asyncio loop."""
        client = cls()
        loop = asyncio.get_running_loop()
        for sock in sockets:
            sock.setblocking(False)
            _, connection = await loop.create_connection(lambda: Connection(client), sock=sock)
            client._all.append(connection)
            client._idle.append(connection)
        return client

    async def ask(self, request: dict[str, Any], timeout_s: float = TIMEOUT_S) -> list[dict[str, Any]]:
        """One question; the lines of its answer, without the one that ends it. Shapes: `zignet.control.messages`.

        Raises `Declined` with the node's own words, `Broken` where no answer comes in time or none can come.
        """
        try:
            async with asyncio.timeout(timeout_s):
                connection = await self._connection()
                return await connection.ask(json.dumps(request).encode() + b"\n")
        except TimeoutError as error:
            raise Broken(f"the node did not answer within {timeout_s:g} s") from error

    async def one(self, request: dict[str, Any], key: str, timeout_s: float = TIMEOUT_S) -> Any:
        """A question whose answer is one value, under this key. Raises as `ask`."""
        for part in await self.ask(request, timeout_s):
            if key in part:
                return part[key]
        raise Broken(f"the node's answer has no {key}")

    def close(self) -> None:
        """Hang up; whoever still waits gets `Broken`."""
        for connection in list(self._all):
            connection.hang_up()

    async def _connection(self) -> Connection:
        if self.gone.is_set():
            raise Broken(Connection.GONE)
        if self._idle:
            return self._idle.pop()
        if len(self._waiting) >= MOST_WAITING:
            raise Broken("too many questions to the node wait already")
        turn: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.free(turn.result())  # it came too late
            elif turn in self._waiting:
                self._waiting.remove(turn)
            raise

    def free(self, connection: Connection) -> None:
        """This one can take the next question."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(connection)
                return
        self._idle.append(connection)

    def lost(self, connection: Connection) -> None:
        """This one has ended, and with it the node: it hands over all or none."""
        self._all.remove(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self.gone.set()
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(Broken(Connection.GONE))


class Connection(asyncio.Protocol):
    """One of the connections. An answer that nobody waits for any more is read to its end all the same."""

    GONE = "the packet process has closed the connection"

    def __init__(self, client: NodeClient) -> None:
        self._client = client
        self._transport: asyncio.Transport | None = None
        self._held = bytearray()
        self._size = 0  # of this answer
        self._lines: list[dict[str, Any]] = []
        self._answer: asyncio.Future[list[dict[str, Any]]] | None = None

    async def ask(self, line: bytes) -> list[dict[str, Any]]:
        """Send a question on this idle connection. It frees itself when the answer is whole."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._lines, self._size = [], 0
        self._transport.write(line)
        return await self._answer

    def hang_up(self) -> None:
        """Close."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._end(Broken(self.GONE))
        self._client.lost(self)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._held += data
        start = 0
        while (end := self._held.find(b"\n", start)) >= 0:
            if not self._line(bytes(self._held[start:end])):
                self.hang_up()
                return
            start = end + 1
        del self._held[:start]
        if len(self._held) > LINE_LIMIT:
            self.hang_up()

    def _line(self, line: bytes) -> bool:
        """False: that is no answer."""
        try:
            part = json.loads(line)
        except (ValueError, RecursionError):
            return False
        if self._answer is None or not isinstance(part, dict):
            return False
        self._size += len(line)
        if "error" in part or "end" in part:
            if self._size > ANSWER_LIMIT:
                self._end(Broken(f"the node's answer is longer than {ANSWER_LIMIT >> 20} MiB"))
            else:
                self._end(Declined(str(part["error"])) if "error" in part else None)
            self._client.free(self)
        elif self._size > ANSWER_LIMIT or self._answer.done():
            self._lines.clear()
        else:
            self._lines.append(part)
        return True

    def _end(self, error: Exception | None) -> None:
        answer, self._answer = self._answer, None
        lines, self._lines = self._lines, []
        if answer is not None and not answer.done():
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(lines)
