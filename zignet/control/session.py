"""The node's side of one control connection, without sockets.

The packet loop drives it: bytes that came go to `receive`, bytes to go come from `pending`. An answer is
pulled from the handler line by line, only as fast as the other end reads, so that a list of 100,000 flows
costs the loop no more at once than one line of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["INPUT_LIMIT", "LINE_LIMIT", "ControlSession", "Handler"]

INPUT_LIMIT = 64 << 10  # bytes received and not yet answered
LINE_LIMIT = 1 << 20  # bytes of one line of an answer

Handler = Callable[[dict[str, Any]], Iterator[Mapping[str, Any]]]

_END = b'{"end":true}\n'


class ControlSession:
    """One connection's state. Never raises: what is wrong with a request is told to the one who sent it."""

    __slots__ = ("_answer", "_handler", "_input", "_output", "closing", "waiting")

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._input = bytearray()
        self._output = memoryview(b"")
        self._answer: Iterator[Mapping[str, Any]] | None = None
        self.waiting = False  # the answer is not there yet: `resume` after a while
        self.closing = False  # close the connection as soon as `wants_write` is False

    @property
    def wants_write(self) -> bool:
        """Whether there is, or may be, something to send."""
        return not self.waiting and self._has_something()

    def resume(self) -> None:
        """Ask the handler again for what was not there yet."""
        self.waiting = False

    def _has_something(self) -> bool:
        return bool(self._output) or self._answer is not None or self._has_request()

    @property
    def wants_read(self) -> bool:
        """Whether more requests are welcome; False while earlier ones still wait for their answer."""
        return not self.closing and not self._has_request()

    def receive(self, data: bytes) -> None:
        """Bytes from the other end, cut anywhere."""
        if self.closing:
            return
        self._input += data
        if len(self._input) > INPUT_LIMIT:
            self._input.clear()
            self.closing = True
            self._answer = iter(({"error": f"more than {INPUT_LIMIT} bytes of requests at once"},))

    def pending(self) -> memoryview:
        """The next bytes to send, empty where there are none; what was sent is reported to `sent`.

        Runs the handler for at most one line. An empty line of its means "not yet", and sets `waiting`.
        """
        if not self._output:
            if self._answer is None and self._has_request():
                self._answer = self._begin()
            if self._answer is not None:
                self._output = memoryview(self._next_line(self._answer))
        return self._output

    def sent(self, count: int) -> None:
        """So many of the pending bytes have gone."""
        self._output = self._output[count:]

    def _has_request(self) -> bool:
        return b"\n" in self._input

    def _begin(self) -> Iterator[Mapping[str, Any]]:
        line, _, rest = self._input.partition(b"\n")
        self._input = rest
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            return iter(({"error": "a request is one line of JSON"},))
        if not isinstance(request, dict):
            return iter(({"error": 'a request is a JSON object, for example {"do":"status"}'},))
        try:
            return self._handler(request)
        except Exception as error:
            return iter(({"error": f"{type(error).__name__}: {error}"},))

    def _next_line(self, answer: Iterator[Mapping[str, Any]]) -> bytes:
        try:
            part = next(answer, None)
            if part is None:
                self._answer = None
                return _END
            if not part:
                self.waiting = True
                return b""
            line = json.dumps(part, separators=(",", ":")).encode() + b"\n"
            if len(line) > LINE_LIMIT:
                raise ValueError("the answer is too long for one line")
        except Exception as error:  # a fault in an answer is no reason to stop forwarding packets
            part = {"error": str(error) or type(error).__name__}
            line = json.dumps(part).encode() + b"\n"
        if "error" in part:
            self._answer = None
        return line
