"""An upstream SOCKS5 proxy: TCP by CONNECT, UDP by UDP ASSOCIATE (RFC 1928), user and password (RFC 1929).

us                                    the proxy
05 01 00            greeting ──►
                               ◄──    05 00                 method: none needed, or
                               ◄──    05 02                 method: user and password
01 n user m password         ──►
                               ◄──    01 00                 signed in
05 cmd 00 target port        ──►
                               ◄──    05 00 00 bound port   granted; what follows is the flow's
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from nat.exit import Associate, Dial, ExitFailure, Reason, Refusal, Step, Target
from zignet.exits.names import host_port, is_sendable

__all__ = ["Datagram", "Socks5", "Socks5Associate", "Socks5Connect"]

# RFC 1928 §3-6
_VERSION = 5
_NO_AUTHENTICATION, _USER_PASSWORD, _NONE_ACCEPTABLE = 0x00, 0x02, 0xFF
_IPV4, _NAME, _IPV6 = 1, 3, 4
_CONNECT_V4 = b"\x05\x01\x00\x01"
_CONNECT_NAME = b"\x05\x01\x00\x03"
_CONNECT_V6 = b"\x05\x01\x00\x04"
_ASSOCIATE_FROM_ANYWHERE = b"\x05\x03\x00\x01" + bytes(6)  # not known: what the proxy will see
_GREETING = b"\x05\x01\x00"
_GREETING_WITH_PASSWORD = b"\x05\x02\x00\x02"
_GRANTED_V4 = b"\x05\x00\x00\x01"  # how nearly every answer begins

# RFC 1928 §6: REP
_REPLIES = {
    1: (Reason.FAILED, "general failure"),
    2: (Reason.PROHIBITED, "its rules forbid this connection"),
    3: (Reason.NET_UNREACHABLE, "network unreachable"),
    4: (Reason.HOST_UNREACHABLE, "host unreachable"),
    5: (Reason.REFUSED, "the far end refused the connection"),
    6: (Reason.TIMED_OUT, "the far end did not answer"),
    7: (Reason.FAILED, "it does not offer this command"),
    8: (Reason.FAILED, "it does not carry this kind of address"),
}

_METHOD, _SIGN_IN, _REPLY, _DONE = range(4)  # what we wait for

_NOTHING_YET = Step()
_FINISHED = Step(done=True)


def _fail(message: str, reason: Reason = Reason.FAILED) -> ExitFailure:
    return ExitFailure(reason, f"SOCKS5 proxy: {message}")


class Socks5Connect:
    """The client's side of one CONNECT. Keeps at most one incomplete answer, 261 bytes."""

    __slots__ = ("_credentials", "_held", "_request", "_stage")

    def __init__(self, request: bytes, credentials: bytes = b"") -> None:
        self._request = request
        self._credentials = credentials  # the whole message of RFC 1929 §2, or b"" where there are none
        self._stage = _METHOD
        self._held = b""

    def start(self) -> bytes:
        """The greeting: the ways to sign in that we know."""
        return _GREETING_WITH_PASSWORD if self._credentials else _GREETING

    def feed(self, data: bytes) -> Step:
        """The proxy's next bytes, cut anywhere. Raises `ExitFailure`."""
        if self._held:
            data = self._held + data
            self._held = b""
        stage = self._stage
        if stage == _REPLY:
            return self._reply(data, b"")
        if stage == _DONE:
            return Step(b"", True, data)
        send = b""
        if stage == _METHOD:
            if len(data) < 2:
                return self._hold(data, send)
            send = self._method(data[0], data[1])
            data = data[2:]
        if self._stage == _SIGN_IN and data:
            if len(data) < 2:
                return self._hold(data, send)
            if data[1] != 0:  # RFC 1929 §2; some proxies put 5 in the version before it
                raise _fail("wrong user or password")
            self._stage = _REPLY
            send += self._request
            data = data[2:]
        if not data:
            return Step(send)
        return self._reply(data, send)

    def _method(self, version: int, method: int) -> bytes:
        """RFC 1928 §3: the proxy's choice; returns what to send next."""
        if version != _VERSION:
            raise _fail(_not_socks(version))
        if method == _NO_AUTHENTICATION:
            self._stage = _REPLY
            return self._request
        if method == _USER_PASSWORD and self._credentials:
            self._stage = _SIGN_IN
            return self._credentials
        if method in (_NONE_ACCEPTABLE, _USER_PASSWORD):
            wants = "another way to sign in" if self._credentials else "a user and a password"
            raise _fail(f"it wants {wants}")
        raise _fail(f"it chose method {method}, which was not offered")

    def _reply(self, data: bytes, send: bytes) -> Step:
        """RFC 1928 §6: VER REP RSV ATYP BND.ADDR BND.PORT."""
        size = len(data)
        if data.startswith(_GRANTED_V4) and size >= 10:
            end = 10
        else:
            if size and data[0] != _VERSION:
                raise _fail(_not_socks(data[0]))
            if size >= 2 and data[1] != 0:  # the rest of a refusal may never come
                reason, text = _REPLIES.get(data[1], (Reason.FAILED, f"failure {data[1]}"))
                raise _fail(text, reason)
            end = _answer_size(data)
            if size < end:
                return self._hold(data, send)
        self._granted(data[3:end])
        self._stage = _DONE
        if not send and size == end:
            return _FINISHED
        return Step(send, True, data[end:])

    def _granted(self, bound: bytes) -> None:
        """The address the proxy speaks from: of no use to a CONNECT."""

    def _hold(self, data: bytes, send: bytes) -> Step:
        if data and data[0] != _VERSION and self._stage != _SIGN_IN:
            raise _fail(_not_socks(data[0]))
        self._held = data
        return Step(send) if send else _NOTHING_YET


class Socks5Associate(Socks5Connect):
    """The client's side of one UDP ASSOCIATE. The relay lives as long as its connection (RFC 1928 §7)."""

    __slots__ = ("_proxy", "_relay")

    def __init__(self, proxy: bytes, credentials: bytes = b"") -> None:
        super().__init__(_ASSOCIATE_FROM_ANYWHERE, credentials)
        self._proxy = proxy
        self._relay: tuple[bytes, int] = (b"", 0)

    @property
    def relay(self) -> tuple[bytes, int]:
        """Address and port that datagrams go to; valid once a step said `done`."""
        return self._relay

    def _granted(self, bound: bytes) -> None:
        port = int.from_bytes(bound[-2:], "big")
        if bound[0] == _NAME:
            raise _fail("it gives its datagram relay by name, not by address")
        if port == 0:
            raise _fail("it gives its datagram relay no port")
        address = _plain(bound[1:-2])
        # An address of "anywhere" means the proxy's own. So must loopback from a proxy elsewhere: a
        # stranger may not point our datagrams at this host.
        if not any(address) or (_is_loopback(address) and not _is_loopback(self._proxy)):
            address = self._proxy
        self._relay = (address, port)


class Datagram:
    """How a relay's datagrams name their far end (RFC 1928 §7): RSV(2) FRAG(1) ATYP(1) address port(2)."""

    @staticmethod
    def header(target: Target) -> bytes:
        """The bytes to put before the payload of a datagram to `target`. Its name must be sendable."""
        port = target.port.to_bytes(2, "big")
        name = target.name
        if name is not None and is_sendable(name):
            return b"\x00\x00\x00\x03" + bytes((len(name),)) + name.encode("ascii") + port
        if len(target.address) == 4:
            return b"\x00\x00\x00\x01" + target.address + port
        return b"\x00\x00\x00\x04" + target.address + port

    @staticmethod
    def parse(datagram: bytes | memoryview) -> tuple[bytes, int, int] | None:
        """(address, port, offset of the payload).

        None where it is malformed, a fragment (FRAG is not 0), or gives its sender by name.
        """
        if len(datagram) < 10 or datagram[2] != 0:
            return None
        kind = datagram[3]
        if kind == _IPV4:
            end = 8
        elif kind == _IPV6 and len(datagram) >= 22:
            end = 20
        else:
            return None
        return _plain(bytes(datagram[4:end])), (datagram[end] << 8) | datagram[end + 1], end + 2


@dataclass(frozen=True, slots=True)
class Socks5:
    """An upstream SOCKS5 proxy at an address. A target's name goes to it where there is one: it resolves.

    Raises ValueError for a user or password that RFC 1929 has no room for (more than 255 bytes).
    """

    kind: ClassVar[str] = "socks5"

    name: str
    address: bytes  # 4 or 16 bytes
    port: int
    username: str | None = None
    password: str = field(default="", repr=False)
    carries_udp: bool = True
    device: str = ""
    _credentials: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_credentials", _credentials(self.username, self.password))

    @property
    def where(self) -> str:
        """For people: the proxy's address and port."""
        return host_port(self.address, self.port)

    def tcp(self, target: Target) -> Dial | Refusal:
        """Through the proxy, to the target's name where it has one, else to its address."""
        name = target.name
        if name is not None:
            if not is_sendable(name):
                return Refusal(Reason.FAILED, "this name can't be sent to a SOCKS5 proxy")
            request = _CONNECT_NAME + bytes((len(name),)) + name.encode("ascii")
        elif len(target.address) == 4:
            request = _CONNECT_V4 + target.address
        else:
            request = _CONNECT_V6 + target.address
        handshake = Socks5Connect(request + target.port.to_bytes(2, "big"), self._credentials)
        return Dial(self.address, self.port, handshake, self.device)

    def udp(self) -> Associate | Refusal:
        """Through a relay that the proxy opens for us."""
        if not self.carries_udp:
            return Refusal(Reason.PROHIBITED, f"UDP is switched off for the exit {self.name}")
        handshake = Socks5Associate(self.address, self._credentials)
        return Associate(Dial(self.address, self.port, handshake, self.device), Datagram)


def _credentials(username: str | None, password: str) -> bytes:
    """RFC 1929 §2: VER ULEN UNAME PLEN PASSWD, or b"" without a user."""
    if username is None:
        return b""
    user, secret = username.encode(), password.encode()
    if not 1 <= len(user) <= 255 or len(secret) > 255:
        raise ValueError("a SOCKS5 user has 1 to 255 bytes, and a password at most 255")
    return b"\x01" + bytes((len(user),)) + user + bytes((len(secret),)) + secret


def _answer_size(data: bytes) -> int:
    """Length of the answer that begins with `data`, as far as can be told: at least 5."""
    if len(data) < 5:
        return 5
    kind = data[3]
    if kind == _IPV4:
        return 10
    if kind == _IPV6:
        return 22
    if kind == _NAME:
        return 7 + data[4]
    raise _fail(f"its answer has an unknown kind of address ({kind})")


def _plain(address: bytes) -> bytes:
    """An IPv4 address in IPv6 clothes (RFC 4291 §2.5.5.2) as 4 bytes; others as they are."""
    return address[12:] if address.startswith(b"\0\0\0\0\0\0\0\0\0\0\xff\xff") else address


def _is_loopback(address: bytes) -> bool:
    return address[0] == 127 if len(address) == 4 else address == b"\0" * 15 + b"\1"


def _not_socks(first: int) -> str:
    guess = ": perhaps its type is http" if first == ord("H") else ""
    return f"what answers there does not speak SOCKS5{guess}"
