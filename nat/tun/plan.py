"""What the system is to be told about a device, and what it answered: values that travel as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from nat.tun.errors import TunError

__all__ = ["Applied", "Neighbour", "Plan", "Survey"]

# Packets that the kernel holds for us; what comes on top is lost, and a lost SYN costs its application a second.
# 4,500 connects at once: with 1,000 two thirds of them stalled, with 4,096 every sixtieth. Each may have 64 KiB.
QUEUE_LENGTH = 4096
RESERVED_TABLES = range(253, 256)  # default, main, local (rt_tables)


@dataclass(frozen=True, slots=True)
class Plan:
    """Addresses, routes, rules and settings of one device. Nothing of another interface is ever changed."""

    name: str
    mtu: int = 1500  # bytes
    queue_length: int = QUEUE_LENGTH  # packets
    gso_size: int = 0  # bytes: the largest super-packet that the kernel shall make; 0: its own choice
    addresses: tuple[
        str, ...
    ] = ()  # "100.64.0.1", "fd7a:...::1": this host on the device, at most one a family
    aliases: tuple[str, ...] = ()  # blocks that are on-link on the device: the NAT's alias addresses
    routes: tuple[str, ...] = ()  # further blocks that enter the device, e.g. fake IPs
    peers: tuple[str, ...] = ()  # blocks of addresses that other hosts stand behind
    peer_mtu: int = 0  # bytes: what the routes to them carry; 0 for the device's
    ranges: tuple[tuple[str, str], ...] = ()  # (setting, block): what nothing else on the host may use
    route_localnet: bool = True  # packets from the device may go to 127.0.0.1
    capture: bool = False  # a global proxy: all that is not bypassed or marked enters the device
    fwmark: int = 0  # SO_MARK of our own sockets
    table: int = 0  # routing table for `capture`, ours alone
    bypass: tuple[str, ...] = ()  # destination blocks that keep their own way

    def __post_init__(self) -> None:
        what = f"plan for {self.name}"
        try:
            families = [ip_address(ip_interface(each).ip).version for each in self.addresses]
            for block in (*self.blocks, *self.bypass, *(block for _, block in self.ranges)):
                ip_network(block)
        except ValueError as error:
            raise TunError(what, str(error)) from error
        if len(set(families)) != len(families):
            raise TunError(what, "one address a family is enough")
        if self.capture and not (0 < self.table < 1 << 32 and self.table not in RESERVED_TABLES):
            raise TunError(
                what, f"routing table {self.table} is not free for use", "set a number from 256 on"
            )
        if self.capture and not 0 < self.fwmark < 1 << 32:
            raise TunError(what, f"mark {self.fwmark} marks nothing", "set a number from 1 to 4294967295")

    @property
    def blocks(self) -> tuple[str, ...]:
        """All that is routed over the device in the main table."""
        return (*self.aliases, *self.routes, *self.peers)

    def address(self, version: int) -> str | None:
        """The device's own address of IP version 4 or 6, without a prefix length."""
        for each in self.addresses:
            address = ip_interface(each).ip
            if address.version == version:
                return str(address)
        return None

    def to_json(self) -> dict[str, Any]:
        """A value for `json.dumps`."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Plan:
        """The plan that `to_json` described."""
        fields: dict[str, Any] = {
            key: tuple(item) if isinstance(item, list) else item for key, item in value.items()
        }
        fields["ranges"] = tuple((setting, block) for setting, block in value.get("ranges", ()))
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of a plan."""

    ipv6: bool  # the device carries IPv6
    notes: tuple[
        str, ...
    ] = ()  # what a person should know: parts that were skipped, leftovers that were repaired

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Applied:
        """The result that a child process printed."""
        return cls(ipv6=value["ipv6"], notes=tuple(value["notes"]))


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another interface of this host that tunnels or proxies."""

    name: str
    kind: str  # as the kernel calls it ("tun", "wireguard"), or ""
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Survey:
    """The host as it is, seen with a plan in mind; nothing was changed."""

    ipv6: bool
    overlaps: tuple[str, ...]  # sentences
    neighbours: tuple[Neighbour, ...]
    rules: int  # policy rules of ours that are in force, both families
    owner: str  # the interface of another ZigNet that captures, or ""
    defaults: tuple[str, ...]  # routes of `main` that are a part of a default route (0.0.0.0/1 dev tun0)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Survey:
        """The result that a child process printed."""
        neighbours = (
            Neighbour(each["name"], each["kind"], tuple(each["addresses"])) for each in value["neighbours"]
        )
        return cls(
            ipv6=value["ipv6"],
            overlaps=tuple(value["overlaps"]),
            neighbours=tuple(neighbours),
            rules=value["rules"],
            owner=value["owner"],
            defaults=tuple(value["defaults"]),
        )
