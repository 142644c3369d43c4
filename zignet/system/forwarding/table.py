"""The nftables table of a packet exit, in the words of libnftables-json(5). Pure.

    forward      zig0 -> zig0 never                        no transit: what came from a peer never goes to one
                 from zig0: only peers' addresses          nothing else enters there to be forwarded
                 to a peer's address: only answers         nobody behind this host reaches peers by it
                 neither from nor to zig0: dropped         only in a family whose forwarding we have switched on
    SYNs: an MSS that both links carry        before a too large segment has to be told of
    output       errors about what is forwarded            not into a global proxy's TUN: they are no flows
    postrouting  peers' addresses leave under this host's  masquerade

A table of our own changes nothing of anybody else's, and vanishes as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

__all__ = ["Wanted", "delete", "name_of", "replace"]

FAMILY = "inet"
BEFORE_OTHERS = -10  # of the filter chains at priority 0
SOURCE_NAT = 100  # NF_IP_PRI_NAT_SRC
MANGLE = -150  # NF_IP_PRI_MANGLE: behind connection tracking

Json = dict[str, Any]
_SYN: Json = {
    "match": {
        "op": "==",
        "left": {"&": [{"payload": {"protocol": "tcp", "field": "flags"}}, ["syn", "rst"]]},
        "right": "syn",
    }
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be forwarded."""

    device: str
    addresses: tuple[str, ...]  # this host's own on the device
    peers: tuple[str, ...]  # blocks that peers' local addresses are in, as CIDR
    mark: int = 0  # of what is not captured by the global proxy that this node is; 0: it is none


def name_of(device: str) -> str:
    """The table that belongs to a TUN."""
    return "zignet_" + re.sub(r"[^A-Za-z0-9_]", "_", device)


def delete(device: str) -> Json:
    """Take the table away, if it is there."""
    table = {"table": {"family": FAMILY, "name": name_of(device)}}
    return {"nftables": [{"add": table}, {"delete": table}]}


def replace(wanted: Wanted, closed: tuple[int, ...]) -> Json:
    """The whole table, in the place of an older one. `closed`: IP versions that were not forwarded before."""
    table = {"family": FAMILY, "name": name_of(wanted.device)}
    commands = [*delete(wanted.device)["nftables"], {"add": {"table": table}}]
    chains = [
        ("forward", "filter", BEFORE_OTHERS, _forward(wanted, closed)),
        ("postrouting", "nat", SOURCE_NAT, _postrouting(wanted)),
    ]
    if wanted.mark:
        chains.append(("output", "route", MANGLE, _output(wanted)))
    for chain, kind, priority, rules in chains:
        where = {"family": FAMILY, "table": table["name"], "name": chain}
        hook = {"type": kind, "hook": chain, "prio": priority, "policy": "accept"}
        commands.append({"add": {"chain": {**where, **hook}}})
        for expressions, comment in rules:
            rule = {"family": FAMILY, "table": table["name"], "chain": chain, "expr": expressions}
            commands.append({"add": {"rule": {**rule, "comment": comment}}})
    return {"nftables": commands}


def _forward(wanted: Wanted, closed: tuple[int, ...]) -> Iterator[tuple[list[Json], str]]:
    into, out_of = _interface("oifname", wanted.device), _interface("iifname", wanted.device)
    drop: Json = {"drop": None}
    counted: list[Json] = [{"counter": None}, drop]
    yield [out_of, into, *counted], "no transit from peer to peer"
    size = {"tcp option": {"name": "maxseg", "field": "size"}}
    for link in (out_of, into):
        yield (
            [link, _SYN, {"mangle": {"key": size, "value": {"rt": {"key": "mtu"}}}}],
            "what both links carry",
        )
    for network in map(ip_network, wanted.peers):
        from_peers, to_peers = _address(network, "saddr"), _address(network, "daddr")
        reply = {"match": {"op": "==", "left": {"ct": {"key": "direction"}}, "right": "reply"}}
        yield [out_of, _version(network.version), _not(from_peers), *counted], "only packets of peers"
        yield [into, to_peers, reply, {"accept": None}], "answers to peers"
        yield [into, to_peers, *counted], "and nothing else"
    for version in closed:
        yield (
            [_version(version), _not(out_of), _not(into), *counted],
            "was not forwarded before this node, and is not by it",
        )


def _output(wanted: Wanted) -> Iterator[tuple[list[Json], str]]:
    related = {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "related"}}
    mark = {"mangle": {"key": {"meta": {"key": "mark"}}, "value": wanted.mark}}
    for network in map(ip_network, wanted.peers):
        outside = _not(_address(network, "daddr"))
        into = _interface("oifname", wanted.device)
        yield [into, outside, related, mark], "errors for the far end"


def _postrouting(wanted: Wanted) -> Iterator[tuple[list[Json], str]]:
    for network in map(ip_network, wanted.peers):
        own = [
            _not(_address(ip_network(each), "saddr"))
            for each in wanted.addresses
            if ip_network(each).version == network.version
        ]
        elsewhere = _not(_interface("oifname", wanted.device))
        yield [elsewhere, _address(network, "saddr"), *own, {"masquerade": None}], "peers leave as this host"


def _interface(key: str, device: str) -> Json:
    return {"match": {"op": "==", "left": {"meta": {"key": key}}, "right": device}}


def _version(version: int) -> Json:
    return {"match": {"op": "==", "left": {"meta": {"key": "nfproto"}}, "right": f"ipv{version}"}}


def _address(network: IPv4Network | IPv6Network, field: str) -> Json:
    protocol = "ip" if network.version == 4 else "ip6"
    block = {"prefix": {"addr": str(network.network_address), "len": network.prefixlen}}
    left = {"payload": {"protocol": protocol, "field": field}}
    return {"match": {"op": "==", "left": left, "right": block}}


def _not(match: Json) -> Json:
    return {"match": {**match["match"], "op": "!="}}
