"""What the command line adds to the steps of the rules: the name, whether the flow enters at all, the peer."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from zignet.cli.destination import Destination
from zignet.cli.lookup import SYSTEM, Found, SystemLookup
from zignet.cli.peers import milliseconds
from zignet.cli.text import duration
from zignet.control.messages import Explanation, Named, Step

if TYPE_CHECKING:
    from zignet.config import Config

__all__ = ["compared", "named_step", "outside", "peer_steps"]

PATIENCE_S = 3.0  # with the system's resolver, where its answer is only compared


def outside(config: Config, address: str) -> str | None:
    """Why flows to this address never enter the TUN, or None where they do."""
    from zignet.config import DnsConfig
    from zignet.exits import peers_in_rules

    ip = ip_address(address)
    if ip.is_loopback or ip.is_link_local or ip.is_multicast:
        return f"{address} does not leave this machine or its link, so it never enters ZigNet"
    if config.listening and ip in (config.tun.range if ip.version == 4 else config.tun.range6):
        return f"{address} is an address of peers (tun.range): it goes to whoever has it, sealed (see `zignet peers`)"
    dns = config.dns or (DnsConfig() if peers_in_rules(config) else None)
    if dns is not None and ip in (dns.fake_range if ip.version == 4 else dns.fake_range6):
        return None
    for network in config.proxy.bypass:
        if ip in network:
            return f"{address} is in proxy.bypass ({network}), so it never enters ZigNet"
    if config.proxy.mode == "off":
        return "proxy.mode is off: only what is routed to the interface by hand enters ZigNet"
    return None


def named_step(destination: Destination, found: Found, named: Named | None, resolve: bool) -> Step:
    """What the name is, and who says so."""
    name, addresses = destination.name, ", ".join(found.addresses)
    if name is None:
        return Step(
            stage="name", text=f"{destination.address} is an address; a flow to it may still carry a name"
        )
    if named is not None and named["source"] == "fake":
        if not found.addresses:
            text = f"{name} gets a fake address from a node: {named['text']}"
        else:
            has = "has" if named["given"] else "would get"
            text = f"{name} {has} the fake address {addresses}: {named['text']}"
    elif addresses and found.by == SYSTEM:
        text = f"{name} is {addresses} (by {SYSTEM})"
    elif addresses:
        why = f"; {named['source']}: {named['text']}" if named is not None else ""
        text = f"{name} is {addresses} (by the node's server{why})"
    elif resolve:
        text = f"{name} does not resolve here; rules about addresses can't be judged"
    else:
        text = f"{name} was not looked up; rules about addresses can't be judged"
    return Step(stage="name", text=text)


def compared(system: SystemLookup, found: Found) -> str:
    """What programs get that ask the system's resolver, where that is something else."""
    other = system.wait(PATIENCE_S)
    if set(other.addresses) & set(found.addresses) or not found.addresses:
        return ""
    says = f"says {', '.join(other.addresses)}" if other.addresses else "does not know the name"
    return (
        f"{SYSTEM} {says}: programs that ask it do not come this way. `zignet dns status` says how this host's names "
        "are led to the node (dns.mode)"
    )


def peer_steps(config: Config, explanation: Explanation) -> list[Step]:
    """Which peer it is, and how it is reached."""
    peer = explanation.get("peer")
    if peer is None:
        if explanation["exit_type"] != "peer":
            return []
        known = next((one for one in config.peers if one.name == explanation["exit"]), None)
        at = f", expected at {known.endpoint}" if known is not None and known.endpoint else ""
        return [Step(stage="peer", text=f"{explanation['exit']}, key {explanation['exit_address']}…{at}")]
    age = peer["handshake_age_s"]
    state = peer["state"] + (f", handshake {duration(age)} ago" if age is not None else "")
    steps = [Step(stage="peer", text=f"{peer['name'] or 'a stranger'}, key {peer['key'][:8]}…, {state}")]
    if peer["path"]:
        rtt = f", round trip {milliseconds(peer['rtt_s'])}" if peer["rtt_s"] is not None else ""
        mtu = f", MTU {peer['path_mtu']}" if peer["path_mtu"] else ""
        steps.append(Step(stage="path", text=f"direct to {peer['path']}{mtu}{rtt}"))
    return steps
