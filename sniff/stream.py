"""The front for TCP: one sniffer that picks the protocol by the first bytes."""

from __future__ import annotations

from typing import Protocol

from sniff.http1 import HttpReader
from sniff.outcome import LIMIT, NEED_MORE, NOT_THIS, Answer
from sniff.tls import HANDSHAKE, TlsReader

__all__ = ["StreamSniffer"]

_HTTP2_START = b"PRI"  # how HTTP/2's preface begins, and no other HTTP method


class _Reader(Protocol):
    def read(self, data: bytes | bytearray, end: int) -> Answer: ...


class StreamSniffer:
    """Sniffs one TCP flow: TLS, HTTP/1.x and HTTP/2 with prior knowledge at once.

    It keeps the early bytes, once, for whoever passes them on: `data`. Only the first `limit` of them count
    towards the answer, so the answer does not depend on how the bytes were cut.
    """

    __slots__ = ("_answer", "_data", "_limit", "_reader")

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._data: bytes | bytearray = b""
        self._answer: Answer = NEED_MORE
        self._reader: _Reader | None = None

    @property
    def data(self) -> bytes:
        """Everything that was fed so far, in order, whatever the answer."""
        return bytes(self._data)

    def feed(self, data: bytes | bytearray | memoryview) -> Answer:
        """The answer after these new bytes of the client's. A final answer stays the same for ever."""
        early = self._keep(data)
        if self._answer is not NEED_MORE:
            return self._answer
        end = min(len(early), self._limit)
        if not end:
            return NEED_MORE
        reader = self._reader
        if reader is None:
            reader = self._reader = _choose(early, end, self._limit)
        answer = NEED_MORE if reader is None else reader.read(early, end)
        if answer is NEED_MORE and end == self._limit:
            answer = NOT_THIS
        if answer is not NEED_MORE:
            self._reader = None
        self._answer = answer
        return answer

    def _keep(self, data: bytes | bytearray | memoryview) -> bytes | bytearray:
        """Adds to the early bytes. The usual single segment, given as `bytes`, is kept without a copy."""
        early = self._data
        if not early:
            early = self._data = bytes(data)
        elif isinstance(early, bytearray):
            early += data
        else:
            early = self._data = bytearray(early)
            early += data
        return early


def _choose(data: bytes | bytearray, end: int, limit: int) -> _Reader | None:
    """The reader for a stream that begins with these bytes; None while that is open."""
    if data[0] == HANDSHAKE:
        return TlsReader(limit)
    start = data[: min(end, len(_HTTP2_START))]
    if start == _HTTP2_START:
        from sniff.http2 import Http2Reader  # rare: most processes never need its tables

        return Http2Reader()
    if start == _HTTP2_START[: len(start)]:
        return None
    return HttpReader(limit)
