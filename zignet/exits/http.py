"""An upstream HTTP proxy: TCP by CONNECT (RFC 9110 §9.3.6), Basic authentication (RFC 7617).

us                                          the proxy
CONNECT host:port HTTP/1.1 …          ──►
                                      ◄──   HTTP/1.1 200 …, a head; what follows is the flow's
"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass, field
from typing import ClassVar

from nat.exit import Dial, ExitFailure, Reason, Refusal, Step, Target
from zignet.exits.names import authority, host_port, is_sendable

__all__ = ["HEAD_LIMIT", "Http", "HttpConnect"]

HEAD_LIMIT = 8192  # bytes of a response's head

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: ([^\r\n]*))?\r?\n")  # RFC 9112 §4
_HEAD_END = re.compile(rb"\r?\n\r?\n")

# RFC 9110 §15. Squid answers 503 where the far end refused, others 502 where there was no way to it.
_STATUSES = {
    403: (Reason.PROHIBITED, "its rules forbid this connection"),
    404: (Reason.HOST_UNREACHABLE, "it does not find the host"),
    405: (Reason.PROHIBITED, "it does not offer CONNECT"),
    451: (Reason.PROHIBITED, "it may not carry this for legal reasons"),
    501: (Reason.PROHIBITED, "it does not offer CONNECT"),
    502: (Reason.HOST_UNREACHABLE, "it could not reach the host"),
    503: (Reason.REFUSED, "it could not connect"),
    504: (Reason.TIMED_OUT, "the far end did not answer"),
}

# What a proxy may add about the true cause: RFC 9209 §2.3, and Squid's error with the errno of its connect().
_PROXY_STATUS = re.compile(rb"\nproxy-status:[^\r\n]*?;[ \t]*error=([a-z_]{1,64})", re.IGNORECASE)
_SQUID_ERROR = re.compile(rb"\nx-squid-error:[ \t]*ERR_([A-Z_]{1,64})[ \t]+([0-9]{1,5})", re.IGNORECASE)
_CAUSES = {
    b"connection_refused": (Reason.REFUSED, "the far end refused the connection"),
    b"connection_timeout": (Reason.TIMED_OUT, "the far end did not answer"),
    b"connection_terminated": (Reason.REFUSED, "the far end ended the connection"),
    b"destination_ip_prohibited": (Reason.PROHIBITED, "its rules forbid this address"),
    b"destination_ip_unroutable": (Reason.NET_UNREACHABLE, "network unreachable"),
    b"destination_not_found": (Reason.HOST_UNREACHABLE, "it does not find the host"),
    b"destination_unavailable": (Reason.HOST_UNREACHABLE, "host unreachable"),
    b"dns_error": (Reason.HOST_UNREACHABLE, "it can't resolve the name"),
    b"dns_timeout": (Reason.HOST_UNREACHABLE, "it can't resolve the name"),
    b"http_request_denied": (Reason.PROHIBITED, "its rules forbid this connection"),
    b"101": (Reason.NET_UNREACHABLE, "network unreachable"),  # Linux errno
    b"110": (Reason.TIMED_OUT, "the far end did not answer"),
    b"111": (Reason.REFUSED, "the far end refused the connection"),
    b"113": (Reason.HOST_UNREACHABLE, "host unreachable"),
    b"DNS_FAIL": (Reason.HOST_UNREACHABLE, "it can't resolve the name"),
}

_NOTHING_YET = Step()


def _fail(message: str, reason: Reason = Reason.FAILED) -> ExitFailure:
    return ExitFailure(reason, f"HTTP proxy: {message}")


class HttpConnect:
    """The client's side of one CONNECT. Keeps at most `HEAD_LIMIT` bytes."""

    __slots__ = ("_authenticated", "_done", "_held", "_request")

    def __init__(self, request: bytes, authenticated: bool = False) -> None:
        self._request = request
        self._authenticated = authenticated
        self._held = b""
        self._done = False

    def start(self) -> bytes:
        """The whole request."""
        return self._request

    def feed(self, data: bytes) -> Step:
        """The proxy's next bytes, cut anywhere. Raises `ExitFailure`."""
        if self._done:
            return Step(b"", True, data)
        scanned = max(0, len(self._held) - 3)  # an end may lie across the cut
        data = self._held + data
        while True:
            if not data[:5] == b"HTTP/"[: len(data)]:
                raise _fail(_not_http(data))
            end = _HEAD_END.search(data, scanned, HEAD_LIMIT)
            if end is None:
                if len(data) >= HEAD_LIMIT:
                    raise _fail(f"the head of its answer is longer than {HEAD_LIMIT} bytes")
                self._held = data
                return _NOTHING_YET
            head, data, scanned = data[: end.end()], data[end.end() :], 0
            if self._granted(head):
                self._done = True
                self._held = b""
                return Step(b"", True, data)

    def _granted(self, head: bytes) -> bool:
        """True for 2xx, False for an interim answer (1xx); every other status raises `ExitFailure`."""
        line = _STATUS_LINE.match(head)
        if line is None:
            raise _fail("its answer does not begin with a status line")
        status = int(line[1])
        if 200 <= status <= 299:
            return True
        if 100 <= status <= 199 and status != 101:
            return False
        if status == 407:
            raise _fail("wrong user or password" if self._authenticated else "it wants a user and a password")
        reason, text = _cause(head) or _STATUSES.get(status, (Reason.FAILED, "it can't do this"))
        phrase = (line[2] or b"").decode("ascii", "replace")[:64]
        phrase = "".join(letter for letter in phrase if letter.isprintable()).strip()
        raise _fail(f"{text} (status {status}{f' {phrase}' if phrase else ''})", reason)


@dataclass(frozen=True, slots=True)
class Http:
    """An upstream HTTP proxy at an address. A target's name goes to it where there is one: it resolves.

    Raises ValueError for a user with a colon in it (RFC 7617 §2 has no room for one) or a control character.
    """

    kind: ClassVar[str] = "http"

    name: str
    address: bytes  # 4 or 16 bytes
    port: int
    username: str | None = None
    password: str = field(default="", repr=False)
    device: str = ""
    _headers: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_headers", _headers(self.username, self.password))

    @property
    def where(self) -> str:
        """For people: the proxy's address and port."""
        return host_port(self.address, self.port)

    def tcp(self, target: Target) -> Dial | Refusal:
        """Through the proxy, to the target's name where it has one, else to its address."""
        if target.name is not None and not is_sendable(target.name):
            return Refusal(Reason.FAILED, "this name can't be sent to an HTTP proxy")
        far_end = authority(target)
        request = f"CONNECT {far_end} HTTP/1.1\r\nHost: {far_end}\r\n{self._headers}\r\n"
        handshake = HttpConnect(request.encode("ascii"), self.username is not None)
        return Dial(self.address, self.port, handshake, self.device)

    def udp(self) -> Refusal:
        """No: there is no CONNECT for datagrams in HTTP/1.1."""
        return Refusal(Reason.PROHIBITED, "HTTP proxies carry no UDP")


def _headers(username: str | None, password: str) -> str:
    """RFC 7617 §2, or "" without a user."""
    if username is None:
        return ""
    pair = f"{username}:{password}"
    if ":" in username or any(ord(letter) < 32 or ord(letter) == 127 for letter in pair):
        raise ValueError("the user of an HTTP proxy has no colon, and user and password no control character")
    return f"Proxy-Authorization: Basic {b64encode(pair.encode()).decode('ascii')}\r\n"


def _cause(head: bytes) -> tuple[Reason, str] | None:
    """The cause that the proxy itself gives, where it gives one."""
    if (named := _PROXY_STATUS.search(head)) is not None:
        return _CAUSES.get(named[1].lower())
    if (squid := _SQUID_ERROR.search(head)) is not None:
        return _CAUSES.get(squid[2]) or _CAUSES.get(squid[1].upper())
    return None


def _not_http(data: bytes) -> str:
    guess = ": perhaps its type is socks5" if data[0] == 5 else ""
    return f"what answers there does not speak HTTP{guess}"
