"""Who may ask what: the checks that every request passes before anything looks at it. Pure.

form    the head is HTTP as RFC 9112 writes it, and not what one server reads so and another otherwise
Host    is a name or an address of this node: a page whose own name was made to resolve to us says another one
Origin  where a browser sends one, is ours: no other page reads or changes anything
token   for changes by TCP; on the unix socket the file's permissions have decided already
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from zignet.admin.refused import Refused

__all__ = ["ADMIN", "Arrival", "Guard", "Headers"]

ADMIN = "admin.zignet"
LOCAL = "localhost"  # what `curl --unix-socket` is usually given
SAFE = ("GET", "HEAD")  # methods that change nothing
SINGLE = ("host", "origin", "authorization", "content-type")

# RFC 9112 §3, §5: an origin-form target, and field lines without folding, without a space in front of the colon
_HEAD = re.compile(
    rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++ /[\x21-\x7e]*+ HTTP/1\.[01]"
    rb"(?:\r\n[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t\x20-\x7e\x80-\xff]*+)*+"
)


class Headers(Protocol):
    """Field values by lower-case name."""

    def getall(self, key: str, default: list[str], /) -> list[str]:
        """All values of a name, in their order."""
        ...


@dataclass(frozen=True, slots=True)
class Arrival:
    """By which way a connection came."""

    address: str = ""  # of ours, that it was made to; "" for the unix socket
    port: int = 0

    @property
    def unix(self) -> bool:
        """Whether it came by the unix socket."""
        return not self.address

    def hosts(self, names: Collection[str]) -> frozenset[str]:
        """What `Host` may say, besides the names the address itself, and the port where it is not 80."""
        if self.unix:
            return frozenset((*names, LOCAL))
        own = f"[{self.address}]" if ":" in self.address else self.address
        ported = frozenset(f"{name}:{self.port}" for name in (*names, own))
        return ported if self.port != 80 else ported | {*names, own}


class Guard:
    """The checks, for one node."""

    def __init__(self, token: str) -> None:
        """`token`: what changes need; with "" nothing can be changed by TCP."""
        self._token = token.encode()
        self._names: frozenset[str] = frozenset((ADMIN,))
        self._hosts: dict[Arrival, frozenset[str]] = {}

    def also_called(self, name: str) -> None:
        """Another name of this node, in lower case."""
        self._names |= {name}
        self._hosts.clear()

    def check(self, method: str, head: bytes, headers: Headers, arrival: Arrival) -> None:
        """Raises `Refused`."""
        if _HEAD.fullmatch(head) is None:
            raise Refused(400, "this is not an HTTP request as RFC 9112 has it")
        for name in SINGLE:
            if len(headers.getall(name, [])) > 1:
                raise Refused(400, f"the request has more than one {name}")
        (host,) = headers.getall("host", []) or [""]
        if host.lower() not in self._hosts_of(arrival):
            raise Refused(421, self._misdirected(host, arrival))
        for origin in headers.getall("origin", []):
            if origin.lower() != f"http://{host.lower()}":
                raise Refused(403, "pages of other origins may not ask this API")
        if method not in SAFE and not arrival.unix:
            self._check_token(headers)

    def _hosts_of(self, arrival: Arrival) -> frozenset[str]:
        hosts = self._hosts.get(arrival)
        if hosts is None:
            hosts = self._hosts[arrival] = arrival.hosts(self._names)
        return hosts

    @staticmethod
    def _misdirected(host: str, arrival: Arrival) -> str:
        port = f":{arrival.port}" if arrival.port not in (0, 80) else ""
        if not host:
            return f"the request names no host: ask for http://{ADMIN}{port}/"
        shown = "".join(letter if letter.isprintable() else "?" for letter in host[:80])
        return f"{shown} is not a name of this node: ask for http://{ADMIN}{port}/"

    def _check_token(self, headers: Headers) -> None:
        for value in headers.getall("authorization", []):
            scheme, _, given = value.partition(" ")
            given_bytes = given.strip().encode("utf-8", "surrogateescape")
            if scheme.lower() == "bearer" and self._token and hmac.compare_digest(given_bytes, self._token):
                return
            raise Refused(401, "the token is not the one in admin-token of the state directory")
        raise Refused(
            401,
            "changes need the token in admin-token of the state directory, as `Authorization: Bearer TOKEN`; "
            "or ask by the unix socket",
        )
