"""What a person may name as a destination: a URL, a host, host:port, an address. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import islice
from typing import Literal
from urllib.parse import urlsplit

from zignet.cli.errors import ExitCode, Fault
from zignet.cli.probe import Speaks
from zignet.cli.text import printable

__all__ = ["Destination", "Protocol", "names_in", "parse"]

Protocol = Literal["tcp", "udp"]

_PORTS: dict[str, tuple[int, Protocol]] = {
    "http": (80, "tcp"),
    "https": (443, "tcp"),
    "ws": (80, "tcp"),
    "wss": (443, "tcp"),
    "quic": (443, "udp"),
    "h3": (443, "udp"),
    "ftp": (21, "tcp"),
    "ssh": (22, "tcp"),
    "smtp": (25, "tcp"),
    "imaps": (993, "tcp"),
    "dns": (53, "udp"),
}
_PROTOCOLS: dict[str, Protocol] = {"tcp": "tcp", "udp": "udp"}  # as schemes, for any port
_SPEAKS: dict[str, Speaks] = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_BY_PORT: dict[int, Speaks] = {80: "http", 443: "https"}  # where no scheme says it
_DEFAULT_PORT = 443


@dataclass(frozen=True, slots=True)
class Destination:
    """What the person asked about."""

    name: str | None  # None where an address was given
    address: str | None
    port: int
    protocol: Protocol
    speaks: Speaks = ""  # what a probe may say there
    path: str = "/"  # with the query


def parse(text: str, udp: bool) -> Destination:
    """A URL, a host, host:port, an address, [v6]:port. Raises `Fault` (usage)."""
    scheme, colon, _ = text.partition("://")
    scheme = scheme.lower()
    try:
        inside = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        bare = ip_address(inside) if not colon else None
    except ValueError:
        bare = None
    if bare is not None:
        protocol: Protocol = "udp" if udp else "tcp"
        return Destination(None, str(bare), _DEFAULT_PORT, protocol, "" if udp else "https")
    try:
        parts = urlsplit(text if colon else f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _unclear(text, str(error)) from error
    if port == 0:
        raise _unclear(text, "there is no port 0")
    if not host:
        raise _unclear(text, "there is no host in it")
    known = _PORTS.get(scheme) if colon else (_DEFAULT_PORT, "tcp")
    if known is None and port is None:
        raise _unclear(text, f"the port of {scheme}:// is not known here, so name it: host:port")
    usual, protocol = known or (_DEFAULT_PORT, _PROTOCOLS.get(scheme, "tcp"))
    if udp:
        protocol = "udp"
    speaks: Speaks = _SPEAKS.get(scheme, "") if colon else _BY_PORT.get(port or usual, "")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    rest = (port or usual, protocol, "" if protocol == "udp" else speaks, path)
    try:
        return Destination(None, str(ip_address(host)), *rest)
    except ValueError:
        return Destination(_ascii(host), None, *rest)


def names_in(lines: Iterable[tuple[str, str]], most: int = 1_000) -> list[str]:
    """The names that rules are about, for completion."""
    from zignet.routing.rule import Domain, RuleError, Suffix, parse_rule

    names = []
    for text, where in islice(lines, most):
        try:
            condition = parse_rule(text, where).condition
        except RuleError:
            continue
        if isinstance(condition, Domain | Suffix):
            names.append(condition.name)
    return names


def _ascii(host: str) -> str:
    """An international name as it goes over the wire."""
    from zignet.routing import ascii_name

    try:
        return ascii_name(host)
    except ValueError as error:
        raise _unclear(host, str(error)) from error


def _unclear(text: str, why: str) -> Fault:
    return Fault(f"{printable(text)!r} is not a URL, a host, or host:port: {why}", ExitCode.USAGE)
