"""TLS: the server name in a ClientHello, over any number of records and segments.

Only the first handshake message of a connection is looked at. Whatever a server would refuse to parse is
`NOT_THIS`; what merely is unknown (cipher suites, extensions, GREASE of RFC 8701) is stepped over.
"""

from __future__ import annotations

from sniff.hostname import host_name
from sniff.outcome import NEED_MORE, NOT_THIS, Answer, Found

__all__ = ["HANDSHAKE", "TlsReader", "client_hello"]

# Record header, RFC 8446 §5.1: type, version, length.
HANDSHAKE = 22
_RECORD_VERSION = 1
_RECORD_LENGTH = 3
_RECORD_BODY = 5
_MAX_RECORD = 16384

# Handshake header, RFC 8446 §4: type, length in three bytes.
_CLIENT_HELLO = 1
_MESSAGE_BODY = 4

# ClientHello, RFC 8446 §4.1.2: version and random have a fixed size, the rest begins with its length.
_SESSION_ID = _MESSAGE_BODY + 2 + 32
_MAX_SESSION_ID = 32
_SHORTEST_HELLO = _SESSION_ID + 1 + 2 + 2 + 1 + 1  # one cipher suite, one compression method

_SERVER_NAME = 0  # RFC 6066 §3
_HOST_NAME = 0
_ENCRYPTED_CLIENT_HELLO = 0xFE0D  # RFC 9849 §5


class TlsReader:
    """Looks for the ClientHello at the start of a stream that begins with `HANDSHAKE`."""

    __slots__ = ("_at", "_hello", "_limit", "_want")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._at = 0  # offset of the first record that was not yet taken into `_hello`
        self._want = 1  # nothing can be learned before this many bytes are there
        self._hello = b""  # what whole records gave of the handshake message

    def read(self, data: bytes | bytearray, end: int) -> Answer:
        """The answer from `data[:end]`, all the early bytes of the stream (bytes already seen come again)."""
        if end < self._want:
            return NEED_MORE
        if self._at == 0:
            answer = self._first_record(data, end)
            if answer is not None:
                return answer
        return self._records(data, end)

    def _first_record(self, data: bytes | bytearray, end: int) -> Answer | None:
        """The usual case, a ClientHello in a single record; None when it takes more records."""
        if end < _RECORD_BODY + _MESSAGE_BODY:
            return self._beginning(data, end)
        if not _record_is_sound(data, 0) or data[_RECORD_BODY] != _CLIENT_HELLO:
            return NOT_THIS
        length = data[_RECORD_LENGTH] << 8 | data[_RECORD_LENGTH + 1]
        if length < _MESSAGE_BODY:
            return None
        size = _message_size(data, _RECORD_BODY)
        if size > self._limit - _RECORD_BODY or size < _SHORTEST_HELLO:
            return NOT_THIS
        if size > length:
            return None
        self._want = _RECORD_BODY + size
        if end < self._want:
            return NEED_MORE
        return client_hello(data, _RECORD_BODY, self._want, "tls")

    def _beginning(self, data: bytes | bytearray, end: int) -> Answer | None:
        """Judges the first nine bytes as they drip in, so that another protocol is let go at once."""
        if end > _RECORD_VERSION and data[_RECORD_VERSION] != 3:
            return NOT_THIS
        if end >= _RECORD_BODY and not _record_is_sound(data, 0):
            return NOT_THIS
        if end > _RECORD_BODY and data[_RECORD_BODY] != _CLIENT_HELLO:
            return NOT_THIS
        if end > _RECORD_BODY and data[_RECORD_LENGTH + 1] < _MESSAGE_BODY and not data[_RECORD_LENGTH]:
            return None  # so small a record may be followed by the next before nine bytes are there
        self._want = end + 1
        return NEED_MORE

    def _records(self, data: bytes | bytearray, end: int) -> Answer:
        """Joins the handshake message out of whole records (RFC 8446 §5.1 lets it be cut anywhere)."""
        while True:
            body = self._at + _RECORD_BODY
            if end < body:
                self._want = body
                return NEED_MORE
            if not _record_is_sound(data, self._at):
                return NOT_THIS
            stop = body + (data[body - 2] << 8 | data[body - 1])
            if end < stop:
                self._want = stop
                return NEED_MORE
            self._at = stop
            self._hello += data[body:stop]
            hello = self._hello
            if hello[0] != _CLIENT_HELLO:
                return NOT_THIS
            if len(hello) < _MESSAGE_BODY:
                continue
            size = _message_size(hello, 0)
            if size > self._limit or size < _SHORTEST_HELLO:
                return NOT_THIS
            if len(hello) >= size:
                return client_hello(hello, 0, size, "tls")


def client_hello(data: bytes | bytearray, start: int, end: int, protocol: str) -> Answer:
    """What the whole ClientHello in `data[start:end]`, handshake header included, says.

    Never `NEED_MORE`. `protocol` is for the `Found`: QUIC carries the same message (RFC 9001 §4.1.3).
    """
    if end - start < _SHORTEST_HELLO or data[start] != _CLIENT_HELLO or data[start + _MESSAGE_BODY] != 3:
        return NOT_THIS
    at = start + _SESSION_ID
    if data[at] > _MAX_SESSION_ID:
        return NOT_THIS
    at += 1 + data[at]
    if end - at < 2 + 2 + 1 + 1:
        return NOT_THIS
    length = data[at] << 8 | data[at + 1]  # cipher suites, two bytes each
    at += 2 + length
    if length < 2 or length & 1 or at >= end:
        return NOT_THIS
    length = data[at]  # compression methods
    at += 1 + length
    if length < 1 or at > end:
        return NOT_THIS
    if at == end:
        return Found(protocol, "")  # no extensions at all, as TLS 1.0 allowed
    if end - at < 2 or at + 2 + (data[at] << 8 | data[at + 1]) != end:
        return NOT_THIS
    at += 2

    name: str | None = None
    ech = False
    while at < end:
        body = at + 4
        if body > end:
            return NOT_THIS
        kind = data[at] << 8 | data[at + 1]
        at = body + (data[at + 2] << 8 | data[at + 3])
        if at > end:
            return NOT_THIS
        if kind == _SERVER_NAME:
            if name is not None:
                return NOT_THIS  # an extension may be there once only, RFC 8446 §4.2
            name = _server_name(data, body, at)
            if name is None:
                return NOT_THIS
        elif kind == _ENCRYPTED_CLIENT_HELLO:
            ech = True
    return Found(protocol, name or "", ech)


def _server_name(data: bytes | bytearray, at: int, end: int) -> str | None:
    """The name in a server_name extension, "" where it is no DNS name, None where its lengths are broken."""
    if end - at < 2 or at + 2 + (data[at] << 8 | data[at + 1]) != end or end - at == 2:
        return None
    at += 2
    name: str | None = None
    while at < end:
        body = at + 3
        if body > end:
            return None
        kind = data[at]
        at = body + (data[at + 1] << 8 | data[at + 2])
        if at > end or at == body:
            return None
        if kind == _HOST_NAME and name is None:
            name = host_name(data[body:at])
    return name or ""


def _record_is_sound(data: bytes | bytearray, at: int) -> bool:
    """Whether the five bytes at `at` are the header of a handshake record of TLS (SSL 3.0 to TLS 1.3)."""
    return (
        data[at] == HANDSHAKE
        and data[at + _RECORD_VERSION] == 3
        and data[at + _RECORD_VERSION + 1] <= 4
        and 0 < (data[at + _RECORD_LENGTH] << 8 | data[at + _RECORD_LENGTH + 1]) <= _MAX_RECORD
    )


def _message_size(data: bytes | bytearray, at: int) -> int:
    """Bytes of the handshake message at `at`, its header included."""
    return _MESSAGE_BODY + (data[at + 1] << 16 | data[at + 2] << 8 | data[at + 3])
