"""The exit that this host is for its peers: what they may have dialled, and what is never dialled for anybody."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import ClassVar

from nat.exit import Dial, DialName, Reason, Refusal, Target, UdpDirect
from nat.sockets import literal

__all__ = ["GuestExit", "may_dial"]

Network = IPv4Network | IPv6Network
NEVER = tuple(
    map(
        ip_network,
        (
            *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "224.0.0.0/3"),
            # Of IPv6 only 2000::/3 is given out, and the prefixes below, which hold IPv4.
            *("2001::/32", "::/128", "::1/128", "fe80::/10", "fec0::/10", "ff00::/8", "100::/64"),
        ),
    )
)
PRIVATE = tuple(
    map(
        ip_network,
        (
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",
            "198.18.0.0/15",
            "2001:2::/48",
            "fc00::/7",
        ),
    )
)
NAT64, NAT64_LOCAL = IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48")  # RFC 6052, RFC 8215
COMPATIBLE = IPv6Network("::/96")  # RFC 4291 §2.5.5.1, deprecated
UNIQUE_LOCAL = IPv6Network("fc00::/7")  # RFC 4193
GLOBAL6 = IPv6Network("2000::/3")  # RFC 3513 §4


def within(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address holds: mapped, compatible, NAT64, 6to4 (RFC 3056)."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in NAT64 or address in COMPATIBLE:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.sixtofour


def may_dial(packed: bytes, *, private: bool, own: Iterable[Network], mine: Callable[[bytes], bool]) -> bool:
    """Whether an address of 4 or 16 bytes may be dialled for somebody else.

    `own`: ZigNet's ranges here, always refused; `mine`: whether it is an address of this very host.
    """
    address = ip_address(packed)
    if mine(packed) or any(address in network for network in own if network.version == address.version):
        return False
    if any(address in network for network in NEVER if network.version == address.version):
        return False
    if isinstance(address, IPv6Address):
        if address in NAT64_LOCAL:
            return private
        inside = within(address)
        if inside is not None:
            return may_dial(inside.packed, private=private, own=own, mine=mine)
        if address not in GLOBAL6 and address not in UNIQUE_LOCAL:
            return False
    return private or not any(address in network for network in PRIVATE if network.version == address.version)


@dataclass(frozen=True, slots=True)
class GuestExit:
    """The ways out for guests: this host's resolver and sockets, within limits."""

    kind: ClassVar[str] = "guests"
    where: ClassVar[str] = ""

    name: str = "guests"
    private: bool = False
    ports: Collection[int] = ()  # (): all
    carries_tcp: bool = True
    carries_udp: bool = True
    own: tuple[Network, ...] = ()  # ZigNet's ranges on this host
    mine: Callable[[bytes], bool] = field(default=lambda address: False, compare=False)

    def may(self, address: bytes) -> bool:
        """Whether this address may be dialled."""
        return may_dial(address, private=self.private, own=self.own, mine=self.mine)

    def tcp(self, target: Target) -> Dial | DialName | Refusal:
        """Dial the name, or the address that stands in its place."""
        if not self.carries_tcp or (self.ports and target.port not in self.ports) or not target.name:
            return Refusal(Reason.PROHIBITED, f"port {target.port} is not offered to peers")
        address = literal(target.name)
        if address is None:
            return DialName(target.name, target.port, may_dial=self.may)
        if not self.may(address):
            return Refusal(Reason.PROHIBITED, f"{target.name} is not dialled for peers")
        return Dial(address, target.port)

    def udp(self) -> UdpDirect | Refusal:
        """From sockets of this host."""
        if not self.carries_udp:
            return Refusal(Reason.PROHIBITED, "UDP is not offered to peers")
        return UdpDirect(may_dial=self.may, ports=frozenset(self.ports))
