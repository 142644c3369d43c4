"""HTTP/2 with prior knowledge, in clear text: the `:authority` of the first request.

The frames that a client sends before its first HEADERS are stepped over (RFC 9113 §3.4, §4). What a server
would answer with a connection error is `NOT_THIS`.
"""

from __future__ import annotations

from sniff.hostname import authority_name
from sniff.hpack import HpackError, decode_fields
from sniff.outcome import NEED_MORE, NOT_THIS, Answer, Found

__all__ = ["PREFACE", "Http2Reader"]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 §3.4

# Frame header, RFC 9113 §4.1: length in three bytes, type, flags, stream.
_TYPE = 3
_FLAGS = 4
_STREAM = 5
_FRAME_BODY = 9
_MAX_FRAME = 16384  # bytes, SETTINGS_MAX_FRAME_SIZE's initial value

_DATA, _HEADERS, _SETTINGS, _PUSH_PROMISE, _CONTINUATION = 0x0, 0x1, 0x4, 0x5, 0x9
_END_HEADERS, _PADDED, _PRIORITY = 0x4, 0x8, 0x20
_SETTING_SIZE = 6
_PRIORITY_SIZE = 5


class Http2Reader:
    """Looks for the first request of a stream that begins with `PREFACE`."""

    __slots__ = ("_at", "_block", "_stream", "_want")

    def __init__(self) -> None:
        self._at = 0  # offset of the next frame; 0 before the preface was seen
        self._want = 1  # nothing can be learned before this many bytes are there
        self._stream = 0  # the stream whose header block is being read; 0 before HEADERS
        self._block = b""  # the fragments of that block

    def read(self, data: bytes | bytearray, end: int) -> Answer:
        """The answer from `data[:end]`, all the early bytes of the stream (bytes already seen come again)."""
        if end < self._want:
            return NEED_MORE
        if not self._at:
            if data[: min(end, len(PREFACE))] != PREFACE[:end]:
                return NOT_THIS
            if end < len(PREFACE):
                return NEED_MORE
            self._at = len(PREFACE)
        while True:
            body = self._at + _FRAME_BODY
            if end < body:
                self._want = body
                return NEED_MORE
            length = data[self._at] << 16 | data[self._at + 1] << 8 | data[self._at + 2]
            stop = body + length
            if length > _MAX_FRAME:
                return NOT_THIS
            if end < stop:
                self._want = stop
                return NEED_MORE
            answer = self._frame(data, self._at, stop)
            if answer is not None:
                return answer
            self._at = stop

    def _frame(self, data: bytes | bytearray, at: int, stop: int) -> Answer | None:
        """Takes one whole frame; None when the next one is needed."""
        kind, flags = data[at + _TYPE], data[at + _FLAGS]
        stream = int.from_bytes(data[at + _STREAM : at + _FRAME_BODY], "big") & 0x7FFFFFFF
        body = at + _FRAME_BODY
        if at == len(PREFACE):  # the preface ends with a SETTINGS frame
            sound = kind == _SETTINGS and not flags & 1 and not stream and (stop - body) % _SETTING_SIZE == 0
            return None if sound else NOT_THIS
        if self._stream:
            if kind != _CONTINUATION or stream != self._stream:
                return NOT_THIS  # nothing may come between the fragments, RFC 9113 §6.2
        elif kind == _HEADERS:
            if not stream & 1:
                return NOT_THIS
            self._stream = stream
            if flags & _PADDED:
                if body >= stop:
                    return NOT_THIS
                stop -= data[body]
                body += 1
            if flags & _PRIORITY:
                body += _PRIORITY_SIZE
            if body > stop:
                return NOT_THIS
        else:
            return NOT_THIS if kind in (_DATA, _PUSH_PROMISE, _CONTINUATION) else None
        self._block += data[body:stop]
        return _request(self._block) if flags & _END_HEADERS else None


def _request(block: bytes) -> Answer:
    """The answer of a whole header block: `:authority`, else Host (RFC 9113 §8.3.1)."""
    try:
        for name, value in decode_fields(block):
            if name in (b":authority", b"host"):
                return Found("h2", authority_name(value))
    except HpackError:
        return NOT_THIS
    return Found("h2", "")
