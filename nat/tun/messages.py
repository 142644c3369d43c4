"""Rules, routes and links in pyroute2's words, and in ours. Nothing here talks to the kernel."""

from __future__ import annotations

import socket
from ipaddress import ip_network
from typing import Any

from nat.tun.rules import OWNER, Priority, Rule

__all__ = ["FAMILIES", "Message", "as_request", "as_rule", "block", "device", "kind"]

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
NOWHERE = {4: "0.0.0.0", 6: "::"}  # noqa: S104  (a default route's destination)
INVERT = 0x02  # FIB_RULE_INVERT
TO_TABLE, GOTO, NOP = 1, 2, 3  # FR_ACT_*
NO_SUPPRESSION = 0xFFFFFFFF  # FRA_SUPPRESS_PREFIXLEN where there is none

Message = Any  # pyroute2's netlink messages are untyped


def kind(link: Message) -> str:
    """What sort of virtual interface a link is ("tun"), or ""."""
    info = link.get("linkinfo")
    return str(info.get("kind") or "") if info else ""


def block(version: int, route: Message) -> str:
    """The destination of a route, as CIDR."""
    return f"{route.get('dst') or NOWHERE[version]}/{route['dst_len']}"


def device(route: Message) -> int:
    """Index of the interface a route leaves by (of several: the first), or 0."""
    if route.get("oif"):
        return int(route.get("oif"))
    hops = route.get("multipath")
    return int(hops[0]["oif"]) if hops else 0


def as_rule(message: Message) -> Rule:
    """A rule of the kernel's, as a value to compare."""
    shortest = message.get("suppress_prefixlen")
    source, destination = message.get("src"), message.get("dst")
    return Rule(
        priority=message.get("priority"),
        source=f"{source}/{message['src_len']}" if source else "",
        destination=f"{destination}/{message['dst_len']}" if destination else "",
        interface=message.get("iifname") or "",
        mark=message.get("fwmark") or 0,
        invert=bool(message["flags"] & INVERT),
        table=message.get("table") or 0 if message["action"] == TO_TABLE else 0,
        shortest=-1 if shortest in (None, NO_SUPPRESSION) else shortest,
    )


def as_request(rule: Rule, version: int) -> dict[str, object]:
    """The arguments of `IPRoute.rule` that add or delete a rule of ours."""
    request: dict[str, object] = {"family": FAMILIES[version], "priority": rule.priority, "protocol": OWNER}
    if rule.table:
        request |= {"action": TO_TABLE, "table": rule.table}
    elif rule.priority == Priority.END:
        request["action"] = NOP
    else:
        request |= {"action": GOTO, "goto": int(Priority.END)}
    if rule.source:
        network = ip_network(rule.source)
        request |= {"src": str(network.network_address), "src_len": network.prefixlen}
    if rule.destination:
        network = ip_network(rule.destination)
        request |= {"dst": str(network.network_address), "dst_len": network.prefixlen}
    if rule.interface:
        request["iifname"] = rule.interface
    if rule.mark:
        request["fwmark"] = rule.mark
    if rule.invert:
        request["flags"] = INVERT
    if rule.shortest >= 0:
        request["FRA_SUPPRESS_PREFIXLEN"] = rule.shortest
    return request
