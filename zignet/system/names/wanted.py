"""What the node wants of the system's name resolution, and what came of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

__all__ = ["ALL", "Applied", "Mode", "NamesError", "Server", "Wanted", "routing_domains"]

ALL = "."  # as a domain: every name
MOST_DOMAINS = 200  # systemd-resolved takes 256 a link; beyond this, all names are led here

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


class NamesError(Exception):
    """The system's names can't be led here, or back; the text says why, and what to do."""


class Mode(StrEnum):
    """`dns.mode` of the configuration; all but AUTO are mechanisms as well."""

    AUTO = "auto"
    RESOLVED = "resolved"  # systemd-resolved: servers and routing domains of our link
    NETWORKMANAGER = "networkmanager"
    DNSMASQ = "dnsmasq"
    RESOLVER = "resolver"  # macOS: /etc/resolver
    RESOLVCONF = "resolvconf"  # /etc/resolv.conf itself
    HIJACK = "hijack"  # nothing is changed: the node answers port 53 seen on the TUN
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Server:
    """Where the node's own name server listens."""

    address: IPv4Address | IPv6Address
    port: int = 53

    def __str__(self) -> str:
        if self.port == 53:
            return str(self.address)
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which names go where. `domains` as `routing_domains` gives them."""

    link: str  # the TUN's name
    index: int  # its number; 0 where there is none
    servers: tuple[Server, ...]  # the best first; one of them at port 53, for /etc/resolv.conf
    domains: tuple[str, ...]
    mode: Mode = Mode.AUTO
    captures: bool = False  # queries that enter the TUN are answered there
    bypass: tuple[IPv4Network | IPv6Network, ...] = ()  # … but not to these
    owner: str = ""  # the state directory; `integrate` fills it in

    @property
    def everything(self) -> bool:
        """Whether all names are to come here, not only some domains."""
        return ALL in self.domains

    @property
    def server53(self) -> Server | None:
        """The first server at port 53."""
        return next((server for server in self.servers if server.port == 53), None)


@dataclass(frozen=True, slots=True)
class Applied:
    """What was done. `upstreams` are the resolvers that this host had; names that are not ours go to them."""

    mechanism: Mode  # never AUTO
    why: str  # a sentence, for the log and `zignet dns status`
    changes: tuple[str, ...] = ()  # what was changed, for people
    upstreams: tuple[str, ...] = ()  # addresses
    upstream_file: str = ""  # a resolv.conf that somebody keeps up to date; "": only `upstreams` are known
    notes: tuple[str, ...] = ()  # what a person should know: what was found and left, what did not work


def routing_domains(patterns: Iterable[str]) -> tuple[str, ...]:
    """Domains for `Wanted.domains`, from `zignet`, `*.video.example`, `+.x`, or `.` for all names.

    Lower case, without the ones below another, sorted; `(".",)` where it is all, or too many for a resolver's
    configuration. They end up in configuration files, so whatever is no domain raises `ValueError`.
    """
    found = set()
    for pattern in patterns:
        if pattern in (ALL, "*"):
            return (ALL,)
        domain = pattern.lower().removeprefix("*.").removeprefix("+.").strip(".")
        if not domain.isascii():
            domain = domain.encode("idna").decode()  # UnicodeError is a ValueError
        if len(domain) > 253 or not all(map(_LABEL.fullmatch, domain.split("."))):
            raise ValueError(f"{pattern[:64]!r} is not a domain")
        found.add(domain)
    kept = sorted(domain for domain in found if not any(above in found for above in _above(domain)))
    return (ALL,) if len(kept) > MOST_DOMAINS else tuple(kept)


def _above(domain: str) -> Iterable[str]:
    while "." in domain:
        domain = domain.partition(".")[2]
        yield domain
