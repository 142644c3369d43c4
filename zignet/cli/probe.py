"""The live probe of `zignet route explain`: one request as a program would make it, and the time of each step.

    connect ─► TLS, for https ─► HEAD, for http and https ─► the status line

Plain sockets of this process, without a mark: what happens to them happens to any program. Nothing that the server says
is followed or believed: certificates are shown and not checked, redirects are named and not taken. Every step ends
within `patience_s`.
"""

from __future__ import annotations

import errno
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import quote

import zignet
from zignet.cli.text import printable

if TYPE_CHECKING:
    from cryptography import x509

__all__ = ["Certificate", "Kind", "Probe", "Speaks", "Stage", "Trouble", "try_out"]

Kind = Literal[
    "refused",
    "unreachable",
    "no route",
    "forbidden",
    "timeout",
    "reset",
    "closed",
    "tls",
    "nonsense",
    "other",
]
Speaks = Literal["https", "http", ""]
Name = Literal["dns", "connect", "tls", "first_byte"]

_KINDS: dict[int, Kind] = {
    errno.ECONNREFUSED: "refused",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "no route",
    errno.EACCES: "forbidden",
    errno.EPERM: "forbidden",
    errno.ETIMEDOUT: "timeout",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.ECONNABORTED: "reset",
}
_MOST_HEAD = 16 << 10  # bytes of an answer that are looked at
_MOST_NAMES = 8  # of a certificate that are shown
_PARTING_S = 0.5
_MOST_PARTING = 16  # reads
_URL_SAFE = "/%:=&?~+!$,;'@()*[]"
_USUAL = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a step failed."""

    kind: Kind
    text: str  # in the words of whoever said it


@dataclass(frozen=True, slots=True)
class Stage:
    """One step."""

    step: Name
    took_s: float
    text: str
    trouble: Trouble | None = None


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a TLS server has shown; nobody has checked it."""

    subject: str
    issuer: str
    names: tuple[str, ...]  # some of those it is for
    until: str  # YYYY-MM-DD
    matches: bool  # one of its names is the one that was asked for


@dataclass(slots=True)
class Probe:
    """How far it came."""

    address: str
    port: int
    source: tuple[str, int] | None = None  # of the last connection that was tried
    stages: list[Stage] = field(default_factory=list)
    tls: str = ""  # e.g. TLSv1.3
    alpn: str = ""
    certificate: Certificate | None = None
    status: str = ""  # the first line of the answer
    location: str = ""  # where a redirect would lead

    @property
    def failed(self) -> Stage | None:
        """The step that it ended with, if that one failed."""
        last = self.stages[-1] if self.stages else None
        return last if last is not None and last.trouble is not None else None


def try_out(
    addresses: list[str],
    port: int,
    name: str | None,
    speaks: Speaks,
    path: str = "/",
    patience_s: float = 10.0,
    before: tuple[Stage, ...] = (),
) -> Probe:
    """One address of each family is tried, until a connection stands. `before` are steps that went before."""
    first = {ip_address(one).version: one for one in reversed(addresses)}
    chosen = [one for one in addresses if one in first.values()]
    probe = Probe(chosen[0], port, stages=list(before))
    for address in chosen:
        sock = _connect(probe, address, patience_s)
        if sock is not None:
            with sock:
                _talk(probe, sock, name, speaks, path, patience_s)
            break
    return probe


def _connect(probe: Probe, address: str, patience_s: float) -> socket.socket | None:
    probe.address = address
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    with _Step(probe, "connect", patience_s) as step:
        sock.settimeout(patience_s)
        try:
            sock.connect((address, probe.port))
        except BaseException:
            probe.source = _own(sock)
            sock.close()
            raise
        probe.source = _own(sock)
        shown = f"[{address}]" if ":" in address else address
        step.done(f"{shown}:{probe.port} has answered")
        return sock
    return None


def _own(sock: socket.socket) -> tuple[str, int] | None:
    try:
        host, port = sock.getsockname()[:2]
    except OSError:
        return None
    return (str(host), int(port)) if port else None


def _talk(
    probe: Probe, sock: socket.socket, name: str | None, speaks: Speaks, path: str, patience_s: float
) -> None:
    if speaks == "https":
        secured = _secure(probe, sock, name, patience_s)
        if secured is None:
            return
        with secured:
            _ask(probe, secured, name, speaks, path, patience_s)
    elif speaks:
        _ask(probe, sock, name, speaks, path, patience_s)


def _secure(probe: Probe, sock: socket.socket, name: str | None, patience_s: float) -> ssl.SSLSocket | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # it is only shown
    context.set_alpn_protocols(["http/1.1"])
    with _Step(probe, "tls", patience_s) as step:
        sock.settimeout(patience_s)
        secured = context.wrap_socket(sock, server_hostname=name)
        probe.tls, probe.alpn = secured.version() or "", secured.selected_alpn_protocol() or ""
        probe.certificate = _certificate(secured.getpeercert(binary_form=True), name or probe.address)
        step.done(", ".join(filter(None, (probe.tls, probe.alpn, _shown(probe.certificate)))))
        return secured
    return None


def _ask(
    probe: Probe,
    sock: socket.socket,
    name: str | None,
    speaks: Literal["https", "http"],
    path: str,
    patience_s: float,
) -> None:
    host = name or (f"[{probe.address}]" if ":" in probe.address else probe.address)
    if probe.port != _USUAL[speaks]:
        host += f":{probe.port}"
    request = (
        f"HEAD {quote(path or '/', safe=_URL_SAFE)} HTTP/1.1\r\nHost: {host}\r\n"
        f"User-Agent: zignet/{zignet.__version__}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    with _Step(probe, "first_byte", patience_s) as step:
        end = time.monotonic() + patience_s
        sock.settimeout(patience_s)
        sock.sendall(request.encode("ascii"))
        head = _received(sock, end)
        took_at = time.monotonic()
        while b"\r\n\r\n" not in head and len(head) < _MOST_HEAD:
            try:
                more = _received(sock, end)
            except (OSError, EOFError):
                break
            head += more
        line, *fields = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        probe.status = printable(line[:200])
        if not line.startswith("HTTP/"):
            raise _Nonsense(f"what came is no HTTP: {probe.status[:60]!r}")
        for each in fields:
            key, _, value = each.partition(":")
            if key.strip().lower() == "location":
                probe.location = printable(value.strip()[:500])
        step.done(probe.status + (f"; it leads on to {probe.location}" if probe.location else ""), took_at)
        _part(sock)


def _part(sock: socket.socket) -> None:
    """Let the server close first, if it does soon: what is not read would make a reset of our close."""
    with suppress(OSError, EOFError):
        end = time.monotonic() + _PARTING_S
        for _ in range(_MOST_PARTING):
            _received(sock, end)


class _Nonsense(Exception):
    """Not the protocol that was expected."""


def _received(sock: socket.socket, end: float) -> bytes:
    """Some bytes, before `end` (monotonic seconds). Raises EOFError, OSError."""
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    sock.settimeout(left)
    data = sock.recv(4096)
    if not data:
        raise EOFError
    return data


class _Step:
    """Adds a step to the probe, however it ends; the troubles of the network stay inside."""

    def __init__(self, probe: Probe, name: Name, patience_s: float) -> None:
        self._probe = probe
        self._name = name
        self._patience_s = patience_s
        self._begun = time.monotonic()
        self._text = ""
        self._at: float | None = None

    def done(self, text: str, at: float | None = None) -> None:
        """It has succeeded, now or at a time."""
        self._text = text
        self._at = time.monotonic() if at is None else at

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        trouble = None if error is None else self._trouble(error)
        if error is not None and trouble is None:
            return False
        now = time.monotonic() if self._at is None else self._at
        text = self._text if trouble is None else trouble.text
        self._probe.stages.append(Stage(self._name, now - self._begun, text, trouble))
        return True

    def _trouble(self, error: BaseException) -> Trouble | None:
        """None: it is a fault of ours."""
        match error:
            case TimeoutError():
                return Trouble("timeout", f"no answer within {self._patience_s:g} s")
            case EOFError() | ssl.SSLEOFError() | ssl.SSLZeroReturnError():
                return Trouble("closed", "the connection was closed")
            case _Nonsense():
                return Trouble("nonsense", str(error))
            case ssl.SSLError():
                return Trouble("tls", printable((error.reason or str(error)).lower().replace("_", " ")))
            case OSError():
                kind = _KINDS.get(error.errno or 0, "other")
                return Trouble(kind, (error.strerror or str(error)).lower())
            case ValueError():  # e.g. a name that TLS can't send
                return Trouble("other", printable(str(error)))
        return None


# --- the certificate


def _certificate(der: bytes | None, name: str) -> Certificate | None:
    """None where it can't be read: it is a stranger's."""
    from cryptography import x509

    try:
        found = x509.load_der_x509_certificate(der or b"")
        names = _names(found)
        return Certificate(
            subject=_common(found.subject) or (names[0] if names else ""),
            issuer=_common(found.issuer),
            names=tuple(map(printable, names[:_MOST_NAMES])),
            until=found.not_valid_after_utc.date().isoformat(),
            matches=any(_covers(each, name) for each in names),
        )
    except Exception:  # whatever the parser thinks of it
        return None


def _names(certificate: x509.Certificate) -> list[str]:
    from cryptography import x509

    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))]


def _common(name: x509.Name) -> str:
    """The common name, or the organisation, or all of it."""
    from cryptography.x509.oid import NameOID

    for kind in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME):
        if found := name.get_attributes_for_oid(kind):
            return printable(str(found[0].value)[:200])
    return printable(name.rfc4514_string()[:200])


def _covers(pattern: str, name: str) -> bool:
    """RFC 9525 §6.3: a * stands for the whole of the leftmost label."""
    pattern, name = pattern.lower().removesuffix("."), name.lower().removesuffix(".")
    if pattern.startswith("*."):
        return name.partition(".")[2] == pattern[2:]
    return pattern == name


def _shown(certificate: Certificate | None) -> str:
    if certificate is None:
        return "a certificate that can't be read"
    other = "" if certificate.matches else ", which is ANOTHER name"
    return (
        f"certificate for {certificate.subject or 'nobody'}{other}, by {certificate.issuer}, "
        f"until {certificate.until} (shown, not checked)"
    )
