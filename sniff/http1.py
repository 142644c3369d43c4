"""HTTP/1.x: the name in an absolute-form target, a CONNECT target, or the Host field.

Decisions, where servers differ:

- A target that carries an authority wins over Host (RFC 9112 §3.2.2), and the request line alone says it.
- Otherwise the whole header section is awaited, as a second Host that says something else makes the
  request invalid (RFC 9112 §3.2): such a request has no name. So has one with a blank before the colon.
- A header section that is longer than the limit is judged by its lines within the limit.
- Lines may end in a bare LF, and folded values are joined (RFC 9112 §2.2, §5.2), as many servers do.
"""

from __future__ import annotations

from bisect import bisect_left

from sniff.hostname import authority_name
from sniff.outcome import NEED_MORE, NOT_THIS, Answer, Found

__all__ = ["HttpReader"]

# The methods of the IANA registry, and below them some that are in use without being in it. A list, because
# "an upper-case word and a blank" is also how SMTP, IRC, FTP and many others begin.
_METHODS = sorted(
    b"""GET POST HEAD PUT DELETE CONNECT OPTIONS TRACE PATCH QUERY
    ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT COPY LABEL LINK LOCK MERGE MKACTIVITY MKCALENDAR MKCOL
    MKREDIRECTREF MKWORKSPACE MOVE ORDERPATCH PROPFIND PROPPATCH REBIND REPORT SEARCH UNBIND UNCHECKOUT
    UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL
    BITS_POST CCM_POST M-SEARCH NOTIFY PURGE RPC_IN_DATA RPC_OUT_DATA SOURCE SSTP_DUPLEX_POST SUBSCRIBE
    UNSUBSCRIBE""".split()
)
_METHOD_SET = frozenset(_METHODS)
_LONGEST_METHOD = max(map(len, _METHODS))
_VERSION = b" HTTP/1."  # and a digit, the line's end
_VERSION_SIZE = len(_VERSION) + 1
_CR, _LF = 13, 10
_BLANKS = b" \t"
_FOLDS = (b" ", b"\t")


class HttpReader:
    """Looks for the host in the first request of a stream."""

    __slots__ = ("_at", "_fields", "_limit", "_method_end", "_start")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._start = 0  # offset of the request line; empty lines may come before it
        self._method_end = 0  # offset of the blank behind the method; 0 while it is not known
        self._fields = 0  # offset of the line end that the first field follows; 0 while it is not known
        self._at = 0  # where the next search begins

    def read(self, data: bytes | bytearray, end: int) -> Answer:
        """The answer from `data[:end]`, all the early bytes of the stream (bytes already seen come again)."""
        if not self._method_end:
            answer = self._method(data, end)
            if answer is not None:
                return answer
        if not self._fields:
            answer = self._request_line(data, end)
            if answer is not None:
                return answer
        return self._header(data, end)

    def _method(self, data: bytes | bytearray, end: int) -> Answer | None:
        """Steps over empty lines (RFC 9112 §2.2) and reads the method; None when it is a known one."""
        start = self._start
        while start < end and (data[start] == _LF or data[start] == _CR):
            start += 1
        self._start = start
        blank = data.find(b" ", start, min(end, start + _LONGEST_METHOD + 1))
        if blank < 0:
            if end - start > _LONGEST_METHOD:
                return NOT_THIS
            begun = bytes(data[start:end])
            at = bisect_left(_METHODS, begun)  # a method that begins so would stand here
            return NEED_MORE if at < len(_METHODS) and _METHODS[at].startswith(begun) else NOT_THIS
        if bytes(data[start:blank]) not in _METHOD_SET:
            return NOT_THIS
        self._method_end = self._at = blank
        return None

    def _request_line(self, data: bytes | bytearray, end: int) -> Answer | None:
        """The answer of the request line alone; None when the fields have to say it."""
        newline = data.find(b"\n", self._at, end)
        if newline < 0:
            self._at = end
            return NEED_MORE
        stop = newline - 1 if data[newline - 1] == _CR else newline
        blank = stop - _VERSION_SIZE
        target = self._method_end + 1
        if blank <= target or data[blank : stop - 1] != _VERSION or not data[stop - 1 : stop].isdigit():
            return NOT_THIS
        if data[self._start : self._method_end] == b"CONNECT":
            return Found("http", authority_name(data[target:blank]))
        if data[target] != 0x2F:  # not "/path", so perhaps "scheme://authority/path"
            scheme_end = data.find(b"://", target, blank)
            if scheme_end >= 0:
                return Found("http", _absolute_form(bytes(data[scheme_end + 3 : blank])))
        self._fields = self._at = newline
        return None

    def _header(self, data: bytes | bytearray, end: int) -> Answer:
        """The answer of the header section, once the empty line behind it (or the limit) is there."""
        stop = _empty_line(data, self._at, end)
        if stop < 0:
            if end < self._limit:
                self._at = max(self._fields, end - 2)
                return NEED_MORE
            stop = data.rfind(b"\n", self._fields, end)  # the last line is cut off
        return Found("http", _host(bytes(data[self._fields : stop + 1])))


def _empty_line(data: bytes | bytearray, at: int, end: int) -> int:
    """Offset of the first line end in `data[at:end]` that an empty line follows; -1 when there is none."""
    crlf = data.find(b"\n\r\n", at, end)
    lf = data.find(b"\n\n", at, end if crlf < 0 else crlf + 1)
    return crlf if lf < 0 else lf


def _absolute_form(target: bytes) -> str:
    """The name in what follows `scheme://` (RFC 3986 §3.2), without the userinfo."""
    authority = target
    for delimiter in b"/?#":
        authority = authority.partition(bytes((delimiter,)))[0]
    return authority_name(authority.rpartition(b"@")[2])


def _host(lines: bytes) -> str:
    """The name in the Host fields of header lines, each with the line end before it; "" if they disagree."""
    lowered = lines.lower()
    at = lowered.find(b"\nhost")
    value: bytes | None = None
    while at >= 0:
        colon = at + len(b"\nhost")
        stop = lowered.find(b"\n", colon)
        if lowered[colon : colon + 1] == b":":
            while lowered[stop + 1 : stop + 2] in _FOLDS:  # the next line goes on with this one
                stop = lowered.find(b"\n", stop + 1)
            found = lowered[colon + 1 : stop].strip(_BLANKS + b"\r\n")
            if value is not None and found != value:
                return ""
            value = found
        elif lowered[colon:stop].lstrip(_BLANKS).startswith(b":"):
            return ""
        at = lowered.find(b"\nhost", colon)
    return authority_name(value) if value else ""
