"""What this node knows itself: the zone `zignet`, and the names of its own addresses. Pure.

    {key}.zignet        a key's 56 characters: AAAA by the key, A where the peer has an address on this host
    {name}.zignet       a configured peer
    admin.zignet        this node
    PTR                 of this node, of peers, and of fake addresses; nothing else in these ranges exists

A name below these does not exist; of one that does, a type that it has not is NODATA (RFC 2308).
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple, Protocol

import dnslib
from dnslib import RR

from zignet.dns.wire import AAAA, ANY, NOERROR, NS, NXDOMAIN, PTR, SOA, A

__all__ = ["ADMIN", "APEX", "TTL_S", "Directory", "Verdict", "Zone", "no_data"]

APEX = "zignet"
ADMIN = "admin.zignet"
TTL_S = 10  # addresses of peers are this host's own choice, and may change with its configuration
NEGATIVE_TTL_S = 5
ARPA4, ARPA6 = "in-addr.arpa", "ip6.arpa"
HEX = frozenset(string.hexdigits.lower())


class Directory(Protocol):
    """Who has which address on this host."""

    def addresses(self, label: str) -> list[bytes] | None:
        """Of `label`.zignet, of 4 and 16 bytes; None: there is no such name."""
        ...

    def name_at(self, address: bytes) -> str | None:
        """The whole name of an address in one of our ranges, or None."""
        ...


class Verdict(NamedTuple):
    """An answer but for its header."""

    code: int
    answers: tuple[RR, ...] = ()
    authority: tuple[RR, ...] = ()


def no_data(owner: str, ttl: int = NEGATIVE_TTL_S, code: int = NOERROR) -> Verdict:
    """Nothing of that type, or (NXDOMAIN) nothing at all; the SOA says how long that holds (RFC 2308 §3)."""
    return Verdict(code, (), (soa(owner, ttl),))


def soa(owner: str, ttl: int = NEGATIVE_TTL_S) -> RR:
    """Of one of our zones."""
    times = (1, 3600, 600, 86400, ttl)  # serial, refresh, retry, expire, minimum
    return RR(owner, SOA, ttl=ttl, rdata=dnslib.SOA(ADMIN, f"nobody.{APEX}", times))


class Zone:
    """Answers of our own; None for what is not ours to say."""

    def __init__(
        self,
        directory: Directory,
        ranges: Iterable[IPv4Network | IPv6Network],
        fake_name: Callable[[bytes], str | None] = lambda address: None,
    ) -> None:
        """`ranges`: of this node, of its peers, of fake addresses. `fake_name`: what a fake address stands for."""
        self._directory = directory
        self._fake_name = fake_name
        self._ranges = tuple(ranges)

    def answer(self, name: str, kind: int) -> Verdict | None:
        """To a question of class IN."""
        if name == APEX:
            return self._apex(kind)
        if name.endswith("." + APEX):
            return self._named(name, kind)
        if name.endswith(("." + ARPA4, "." + ARPA6)):
            return self._reverse(name, kind)
        return None

    def _apex(self, kind: int) -> Verdict:
        if kind == SOA:
            return Verdict(NOERROR, (soa(APEX, TTL_S),))
        if kind in (NS, ANY):
            return Verdict(NOERROR, (RR(APEX, NS, ttl=TTL_S, rdata=dnslib.NS(ADMIN)),))
        return no_data(APEX)

    def _named(self, name: str, kind: int) -> Verdict:
        label = name[: -len(APEX) - 1]
        addresses = self._directory.addresses(label) if "." not in label else None
        if addresses is None:
            return no_data(APEX, code=NXDOMAIN)
        answers = tuple(
            _address(name, address)
            for address in addresses
            if kind in (ANY, A if len(address) == 4 else AAAA)
        )
        return Verdict(NOERROR, answers) if answers else no_data(APEX)

    def _reverse(self, name: str, kind: int) -> Verdict | None:
        start, bits, width = reverse_prefix(name)
        if width == 0:
            return None
        apex = self._apex_of(start, bits, width)
        if not apex:
            return None
        if bits < width:
            return no_data(apex)  # there are names below it, or might be
        address = start.to_bytes(width // 8, "big")
        target = self._directory.name_at(address) or self._fake_name(address)
        if target is None:
            return no_data(apex, code=NXDOMAIN)
        if kind in (PTR, ANY):
            return Verdict(NOERROR, (RR(name, PTR, ttl=TTL_S, rdata=dnslib.PTR(target)),))
        return no_data(apex)

    def _apex_of(self, start: int, bits: int, width: int) -> str:
        """The reverse zone of ours that holds a prefix, or ""."""
        for network in self._ranges:
            if network.max_prefixlen == width and bits >= network.prefixlen:
                own = int(network.network_address) >> (width - network.prefixlen)
                if start >> (width - network.prefixlen) == own:
                    step = 8 if width == 32 else 4
                    length = -(-network.prefixlen // step) * step
                    return reverse_name(start, length, width)
        return ""


def _address(name: str, address: bytes) -> RR:
    if len(address) == 4:
        return RR(name, A, ttl=TTL_S, rdata=dnslib.A(tuple(address)))
    return RR(name, AAAA, ttl=TTL_S, rdata=dnslib.AAAA(tuple(address)))


def reverse_prefix(name: str) -> tuple[int, int, int]:
    """(address with zeros behind the prefix, bits of the prefix, 32 or 128) of a name below in-addr.arpa or ip6.arpa;
    all 0 for one that is no address (RFC 1035 §3.5, RFC 3596 §2.5)."""
    if name.endswith("." + ARPA4):
        labels = name[: -len(ARPA4) - 1].split(".")
        if len(labels) > 4 or not all(_is_octet(label) for label in labels):
            return 0, 0, 0
        value, step, width = 0, 8, 32
        numbers = [int(label) for label in labels]
    else:
        labels = name[: -len(ARPA6) - 1].split(".")
        if len(labels) > 32 or not all(len(label) == 1 and label in HEX for label in labels):
            return 0, 0, 0
        value, step, width = 0, 4, 128
        numbers = [int(label, 16) for label in labels]
    for number in reversed(numbers):
        value = value << step | number
    bits = step * len(numbers)
    return value << (width - bits), bits, width


def _is_octet(label: str) -> bool:
    plain = label.isascii() and label.isdigit() and len(label) <= 3
    return plain and int(label) < 256 and (label == "0" or label[0] != "0")


def reverse_name(address: int, bits: int, width: int) -> str:
    """The name of a prefix."""
    step = 8 if width == 32 else 4
    mask = (1 << step) - 1
    numbers = [address >> (width - at) & mask for at in range(bits, 0, -step)]
    labels = [str(number) if step == 8 else f"{number:x}" for number in numbers]
    return ".".join([*labels, ARPA4 if step == 8 else ARPA6])
