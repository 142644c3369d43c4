"""The policy rules of a global proxy, as values. Nothing here talks to the kernel.

A packet meets them in this order (`ip rule`); the first line that decides ends the walk:

    8500  iif zig0               goto 8540   what comes out of the device never goes back into it
    8505  to BYPASS              goto 8540   blocks of the configuration, multicast, link-local, broadcast
    8510  from OWN BLOCK         goto 8540   replies of services here, old connections, bound sockets; and what is
                                             forwarded for a neighbour (a container, a LAN): not this host's traffic
    8520  lookup main, but not its default   what is nearer than the default route: the LAN, other tunnels
    8530  not fwmark M           lookup T    the rest enters zig0, but for our own sockets
    8540  nop                                from here on everything is as if ZigNet were not there

`goto` rather than `lookup main`: a host may have rules of its own further down (a VPN, two uplinks), and what
we do not take must meet them. The 8510 lines also satisfy a strict rp_filter (RFC 3704): the kernel
checks the reverse path of an arriving packet by these very rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Network, IPv6Network, ip_network

from nat.tun.plan import Plan

__all__ = ["ALL", "OWNER", "Priority", "Rule", "in_order", "is_default", "needs_rule", "wanted"]

OWNER = 90  # FRA_PROTOCOL and RTA_PROTOCOL of what we set; free in rt_protos
MAIN = 254  # RT_TABLE_MAIN


class Priority(IntEnum):
    """Fixed for ever: a later version must find the rules of an earlier one."""

    INSIDE = 8500
    BYPASS = 8505
    OWN = 8510
    NEAR = 8520
    CAPTURE = 8530
    END = 8540


ALL = frozenset(Priority)

# What is on a link and has no business in a tunnel: multicast (RFC 5771, RFC 4291 §2.7), link-local
# (RFC 3927, RFC 4291 §2.5.6), limited broadcast (RFC 919).
NEVER = {
    4: ("169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32"),
    6: ("fe80::/10", "ff00::/8"),
}

# A route this short is a part of a default route: VPN clients cover one with 0.0.0.0/1 and 128.0.0.0/1, or
# with 2000::/3. The next longer ones that mean something are 224.0.0.0/4 and fc00::/7.
DEFAULT_LENGTH = {4: 3, 6: 4}


@dataclass(frozen=True, slots=True, order=True)
class Rule:
    """One rule of one family; "" and 0 stand for "any"."""

    priority: int
    source: str = ""  # CIDR
    destination: str = ""  # CIDR
    interface: str = ""  # that the packet came in by
    mark: int = 0
    invert: bool = False
    table: int = 0  # to look up; with 0 the rule is a goto to END, or END itself
    shortest: int = -1  # ignore routes of this prefix length and shorter; -1: none


def wanted(plan: Plan, version: int, own_blocks: Iterable[str]) -> frozenset[Rule]:
    """The rules of one IP version, none where the plan does not capture it.

    `own_blocks` are the on-link networks of all other interfaces; loopback and link-local ones need no rule.
    """
    if not plan.capture or plan.address(version) is None:
        return frozenset()
    bypass = [block for block in plan.bypass if ip_network(block).version == version]
    blocks = [block for each in own_blocks if (block := ip_network(each)).version == version]
    own = {str(block) for block in blocks if needs_rule(block)}
    return frozenset(
        [
            Rule(Priority.INSIDE, interface=plan.name),
            *(
                Rule(Priority.BYPASS, destination=str(ip_network(block)))
                for block in (*NEVER[version], *bypass)
            ),
            *(Rule(Priority.OWN, source=each) for each in own),
            Rule(Priority.NEAR, table=MAIN, shortest=DEFAULT_LENGTH[version]),
            Rule(Priority.CAPTURE, mark=plan.fwmark, invert=True, table=plan.table),
            Rule(Priority.END),
        ]
    )


def in_order(rules: Iterable[Rule]) -> list[Rule]:
    """The order to add them in: END first, CAPTURE last, so that every exception stands before it is needed.

    The reverse is the order to remove them in.
    """
    rank = {Priority.END: 0, Priority.CAPTURE: 2}
    return sorted(rules, key=lambda rule: (rank.get(Priority(rule.priority), 1), rule))


def is_default(block: str) -> bool:
    """A default route, or one of the few pieces that VPN clients cut it into."""
    network = ip_network(block)
    return network.prefixlen <= DEFAULT_LENGTH[network.version]


def needs_rule(block: IPv4Network | IPv6Network) -> bool:
    """Addresses that packets may come from; loopback and link-local ones never meet the rules."""
    return not (block.is_loopback or block.is_link_local)
