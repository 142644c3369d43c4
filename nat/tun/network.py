"""Addresses, routes and rules, by pyroute2: a program of its own.

    python -m nat.tun.network  <  {"task": "apply", "plan": {...}}   >  {"result": {...}} or {"error": {...}}

pyroute2 costs 25 MiB and brings an event loop with it; in a child that lives for a third of a second neither
matters. `nat.tun.configure` is the other end. Everything is idempotent: what is there is compared with what
is wanted, and only the difference is written, so a leftover of a killed run is repaired like anything else.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from ipaddress import ip_interface, ip_network

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from nat.tun import messages, sysctl
from nat.tun.errors import InterfaceGone, NotPermitted, Overlap, OwnedByAnother, TunError
from nat.tun.host import Host
from nat.tun.messages import FAMILIES, Message
from nat.tun.plan import Applied, Plan, Survey
from nat.tun.rules import MAIN, OWNER, Rule, in_order, wanted

__all__ = ["main"]

BITS = {4: 32, 6: 128}
DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}
LINK = 253  # RT_SCOPE_LINK
NODAD = 0x02  # IFA_F_NODAD
IFF_UP, IFF_MULTICAST = 0x1, 0x1000
# Of connections over the device, both ends of which are on this host: nothing is lost here, and pacing (BBR's)
# only costs: a third more CPU time per byte was measured, and up to twice as much. The way to the exit keeps the
# system's choice.
# "reno" is in every kernel.
CONGESTION_CONTROL = "reno"

# Documentation addresses (RFC 5737, RFC 3849): no kernel treats them in a special way.
ANYWHERE = {4: "198.51.100.1", 6: "2001:db8:ffff::1"}


class Network:
    """Carries out one plan in the namespace that this process runs in."""

    def __init__(self, ip: IPRoute, plan: Plan) -> None:
        self.ip = ip
        self.plan = plan
        self.host = Host(ip, plan)
        self.carried = tuple(v for v in self.host.versions if plan.address(v) and (v == 4 or self.host.ipv6))
        self.notes: list[str] = []

    def apply(self) -> Applied:
        """Carry out the plan; on an error nothing of it stays."""
        self._check()
        try:
            self._apply_link()
            self._apply_addresses()
            for version in self.host.versions:
                self._apply_routes(version)
            self._apply_all_rules()
        except BaseException:
            with suppress(TunError, NetlinkError, OSError):
                self.remove()
            raise
        if self.plan.capture:
            self._look_where_traffic_goes()
        return self._applied()

    def sync(self) -> Applied:
        """Bring the rules in line with the plan and with the addresses that the host has now.

        Without our default route the plan is not in force (any more), and there is nothing to bring in line.
        """
        routes = [route for version in self.carried for route in self.host.own_routes(version)]
        if any(route.get("table") == self.plan.table for route in routes):
            self._apply_all_rules()
        return self._applied()

    def remove(self) -> Applied:
        """Take back whatever of the plan is there, the rule that captures first; the device goes down."""
        for version in self.host.versions:
            self._apply_rules(version, frozenset())
            for route in self.host.own_routes(version):
                self._delete_route(version, route)
        if self.host.index:
            self._remove_addresses()
            with _ignoring(errno.ENODEV):
                self.ip.link("set", index=self.host.index, flags=IFF_MULTICAST, change=IFF_UP | IFF_MULTICAST)
            sysctl.restore(self.plan.name)
        return self._applied()

    def survey(self) -> Survey:
        """Look, and change nothing."""
        return self.host.survey()

    def _applied(self) -> Applied:
        return Applied(6 in self.carried, tuple(self.notes))

    def _check(self) -> None:
        plan, host = self.plan, self.host
        if not host.index:
            raise InterfaceGone(f"cannot configure {plan.name}", "there is no interface of that name")
        if overlaps := host.overlaps():
            settings = (
                " or ".join(dict.fromkeys(setting for setting, _ in plan.ranges)) or "the blocks of tun"
            )
            raise Overlap("address blocks are in use", "; ".join(overlaps), f"set {settings} to free blocks")
        owner = next((owner for version in host.versions if (owner := host.owner(version))), "")
        if plan.capture and owner:
            why = f"{owner} captures the traffic of this host already"
            raise OwnedByAnother(
                "cannot be the global proxy", why, "stop the other ZigNet, or set `mode: off`"
            )
        if plan.address(6) and not host.ipv6:
            self.notes.append("IPv6 is switched off on this system; the device carries IPv4 only")
        if plan.capture and host.ipv6 and not plan.address(6):
            self.notes.append("the device has no IPv6 address; IPv6 traffic keeps its own way")
        leftover = sum(len(host.rules(version)) for version in host.versions)
        if leftover and not owner and not any(host.own_routes(version) for version in host.versions):
            self.notes.append(
                f"{leftover} rules of an earlier run that was killed were taken over or removed"
            )

    def _apply_link(self) -> None:
        plan = self.plan
        self.ip.link("set", index=self.host.index, mtu=plan.mtu, txqlen=plan.queue_length)
        if plan.gso_size:
            with _ignoring(errno.EOPNOTSUPP, errno.EINVAL):  # older kernels have no such choice
                self.ip.link("set", index=self.host.index, gso_max_size=plan.gso_size)
        self.notes += sysctl.settle(plan.name, route_localnet=plan.route_localnet, ipv6=6 in self.carried)
        # Nobody on the device listens to multicast; without the flag the kernel reports no memberships to it.
        flags, mask = IFF_UP, IFF_UP | IFF_MULTICAST
        self.ip.link("set", index=self.host.index, flags=flags, change=mask)

    def _apply_addresses(self) -> None:
        for version in self.carried:
            extra = {"flags": NODAD} if version == 6 else {}
            address, bits = self.plan.address(version), BITS[version]
            self.ip.addr("replace", index=self.host.index, address=address, prefixlen=bits, **extra)

    def _remove_addresses(self) -> None:
        for each in self.plan.addresses:
            address = ip_interface(each).ip
            with _ignoring(errno.EADDRNOTAVAIL, errno.ENODEV, errno.EOPNOTSUPP, errno.EAFNOSUPPORT):
                bits = BITS[address.version]
                self.ip.addr("del", index=self.host.index, address=str(address), prefixlen=bits)

    def _apply_routes(self, version: int) -> None:
        routes = self._wanted_routes(version)
        for route in self.host.own_routes(version):
            if (messages.block(version, route), route.get("table")) not in routes:
                self._delete_route(version, route)
        extra: dict[str, object] = {"scope": LINK} if version == 4 else {}
        if source := self.plan.address(version):
            extra["prefsrc"] = source
        peers = {str(ip_network(block)) for block in self.plan.peers}
        for block, table in sorted(routes):
            family, index = FAMILIES[version], self.host.index
            extra["metrics"] = self._metrics(block in peers)
            self.ip.route("replace", family=family, dst=block, oif=index, table=table, proto=OWNER, **extra)

    def _metrics(self, to_peers: bool) -> dict[str, object]:
        """Of a route: the far end of those to peers is not on this host."""
        if not to_peers:
            return {"cc_algo": CONGESTION_CONTROL}
        return {"mtu": self.plan.peer_mtu} if self.plan.peer_mtu else {}

    def _wanted_routes(self, version: int) -> set[tuple[str, int]]:
        """(block, table) of every route over the device."""
        if version not in self.carried:
            return set()
        networks = (ip_network(block) for block in self.plan.blocks)
        routes = {(str(network), MAIN) for network in networks if network.version == version}
        return routes | ({(DEFAULT[version], self.plan.table)} if self.plan.capture else set())

    def _delete_route(self, version: int, route: Message) -> None:
        which = {"dst": messages.block(version, route), "table": route.get("table"), "scope": route["scope"]}
        with _ignoring(errno.ESRCH, errno.ENODEV):
            self.ip.route("del", family=FAMILIES[version], oif=self.host.index, proto=OWNER, **which)

    def _apply_all_rules(self) -> None:
        for version in self.host.versions:
            rules = (
                wanted(self.plan, version, self.host.other_blocks(version))
                if version in self.carried
                else frozenset()
            )
            self._apply_rules(version, rules)

    def _apply_rules(self, version: int, rules: frozenset[Rule]) -> None:
        if self.host.owner(version):
            return  # another instance's; ours is no global proxy, or `apply` would have refused
        there = self.host.rules(version)
        for rule in reversed(in_order(there - rules)):
            with _ignoring(errno.ENOENT, errno.ESRCH):
                self.ip.rule("del", **messages.as_request(rule, version))
        for rule in in_order(rules - there):
            with _ignoring(errno.EEXIST):
                self.ip.rule("add", **messages.as_request(rule, version))

    def _look_where_traffic_goes(self) -> None:
        for version in self.carried:
            with suppress(NetlinkError):
                for route in self.ip.route("get", family=FAMILIES[version], dst=ANYWHERE[version]):
                    device = self.host.name(route.get("oif"))
                    if device != self.plan.name:
                        why = "a rule or a route of another program comes first (see `ip rule`)"
                        self.notes.append(
                            f"{device} takes IPv{version} traffic before {self.plan.name}: {why}"
                        )


@contextmanager
def _ignoring(*codes: int) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        if error.code not in codes:
            raise


def _translate(error: NetlinkError, plan: Plan) -> TunError:
    what = f"cannot configure {plan.name}"
    if error.code in (errno.EPERM, errno.EACCES):
        return NotPermitted(what, "not permitted", "run as root, or with CAP_NET_ADMIN")
    if error.code == errno.ENODEV:
        return InterfaceGone(what, "the interface is gone")
    if error.code in (errno.EOPNOTSUPP, errno.EAFNOSUPPORT):
        return TunError(what, "the kernel lacks policy routing (CONFIG_IP_MULTIPLE_TABLES)")
    return TunError(what, str(error.args[-1]) if error.args else os.strerror(error.code))


def main() -> int:
    """Read one request on stdin, answer on stdout; the exit code is 0 for both kinds of answer."""
    request = json.load(sys.stdin)
    plan = Plan.from_json(request["plan"])
    answer: dict[str, object]
    try:
        with IPRoute() as ip:
            network = Network(ip, plan)
            tasks: dict[str, Callable[[], Applied | Survey]] = {
                "apply": network.apply,
                "sync": network.sync,
                "remove": network.remove,
                "survey": network.survey,
            }
            answer = {"result": asdict(tasks[request["task"]]())}
    except TunError as error:
        answer = {"error": error.to_json()}
    except NetlinkError as error:
        answer = {"error": _translate(error, plan).to_json()}
    json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
