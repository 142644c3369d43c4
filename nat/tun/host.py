"""The host as the kernel describes it now: links, addresses, routes, our rules. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_interface, ip_network
from typing import NamedTuple

from pyroute2 import IPRoute

from nat.tun import messages, sysctl
from nat.tun.messages import FAMILIES, Message
from nat.tun.plan import Neighbour, Plan, Survey
from nat.tun.rules import ALL, MAIN, OWNER, Priority, Rule, is_default

__all__ = ["Host"]

LOCAL = 255  # RT_TABLE_LOCAL
CLONED = 0x200  # RTM_F_CLONED: a cached route, not a configured one
TUNNELS = ("tun", "wireguard", "ppp", "ipip", "gre", "sit", "vti", "xfrm", "ip6tnl")


class Route(NamedTuple):
    """A configured route outside the table `local`."""

    block: str
    table: int
    device: int  # index of the interface, or 0


class Host:
    """This network namespace, seen with one plan in mind."""

    def __init__(self, ip: IPRoute, plan: Plan) -> None:
        self.plan = plan
        self._ip = ip
        links = list(ip.get_links())
        self._names: dict[int, str] = {link["index"]: link.get("ifname") for link in links}
        self._kinds: dict[int, str] = {link["index"]: messages.kind(link) for link in links}
        self.index = next((index for index, name in self._names.items() if name == plan.name), 0)
        self.ipv6 = sysctl.ipv6_enabled()
        self.versions = (4, 6) if sysctl.ipv6_exists() else (4,)  # rules outlive an IPv6 that is switched off

    def name(self, index: int) -> str:
        """The name of an interface."""
        return self._names.get(index, "?")

    def own_routes(self, version: int) -> list[Message]:
        """The routes over the device that a ZigNet made, in whatever table."""
        if not self.index:
            return []
        routes = self._ip.get_routes(family=FAMILIES[version])
        return [each for each in routes if each["proto"] == OWNER and each.get("oif") == self.index]

    def rules(self, version: int) -> frozenset[Rule]:
        """The rules of a ZigNet that are in force."""
        return frozenset(
            messages.as_rule(each)
            for each in self._ip.get_rules(family=FAMILIES[version])
            if each.get("priority") in ALL and each.get("protocol") == OWNER
        )

    def owner(self, version: int) -> str:
        """The interface of another, living ZigNet that captures in this namespace, or "".

        A table without a default route is a dead run's: its device took the route along.
        """
        tables = {rule.table for rule in self.rules(version) if rule.priority == Priority.CAPTURE}
        for route in self._routes(version) if tables else ():
            if route.table in tables and route.device not in (self.index, 0) and is_default(route.block):
                return self.name(route.device)
        return ""

    def other_addresses(self, version: int) -> Iterator[tuple[str, int]]:
        """(address, index) of every interface but the device."""
        for each in self._ip.get_addr(family=FAMILIES[version]):
            if each["index"] != self.index:
                yield each.get("local") or each.get("address"), each["index"]

    def other_blocks(self, version: int) -> Iterator[str]:
        """The on-link networks of every interface but the device."""
        for each in self._ip.get_addr(family=FAMILIES[version]):
            if each["index"] != self.index:
                address = each.get("local") or each.get("address")
                yield str(ip_interface(f"{address}/{each['prefixlen']}").network)

    def overlaps(self) -> list[str]:
        """A sentence for each of our blocks that another interface has a route or an address in."""
        ours = [*self.plan.ranges]
        ours += [("the NAT's aliases", block) for block in self.plan.aliases]
        ours += [("a route of ours", block) for block in self.plan.routes]
        ours += [("our address", str(ip_interface(each).ip)) for each in self.plan.addresses]
        found: dict[str, None] = {}  # in order, each once
        for version in self.versions:
            mine = [each for each in ours if ip_network(each[1]).version == version]
            for block, what in self._foreign(version):
                for setting, network in mine:
                    if ip_network(network).overlaps(ip_network(block)):
                        found.setdefault(f"{network} ({setting}) overlaps {what}")
                        break  # the first of ours says enough
        return list(found)

    def survey(self) -> Survey:
        """All that `zignet doctor` wants to know."""
        pieces = tuple(
            f"{route.block} dev {self.name(route.device)}"
            for version in self.versions
            for route in self._routes(version)
            if route.table == MAIN and is_default(route.block) and not route.block.endswith("/0")
        )
        neighbours = (
            Neighbour(name, self._kinds[index], self._addresses_of(index))
            for index, name in self._names.items()
            if index != self.index and self._kinds[index] in TUNNELS
        )
        owners = [owner for version in self.versions if (owner := self.owner(version))]
        return Survey(
            ipv6=self.ipv6,
            overlaps=tuple(self.overlaps()),
            neighbours=tuple(neighbours),
            rules=sum(len(self.rules(version)) for version in self.versions),
            owner=owners[0] if owners else "",
            defaults=pieces,
        )

    def _routes(self, version: int) -> Iterator[Route]:
        for route in self._ip.get_routes(family=FAMILIES[version]):
            table = route.get("table") or route["table"]
            if table != LOCAL and not route["flags"] & CLONED:
                yield Route(messages.block(version, route), table, messages.device(route))

    def _foreign(self, version: int) -> Iterator[tuple[str, str]]:
        """(block, description) of what other interfaces have."""
        for address, index in self.other_addresses(version):
            yield address, f"address {address} dev {self.name(index)}"
        for route in self._routes(version):
            if route.device != self.index and not is_default(route.block):
                where = f" dev {self.name(route.device)}" if route.device else ""
                table = "" if route.table == MAIN else f" table {route.table}"
                yield route.block, f"route {route.block}{where}{table}"

    def _addresses_of(self, index: int) -> tuple[str, ...]:
        return tuple(
            address
            for version in self.versions
            for address, at in self.other_addresses(version)
            if at == index
        )
