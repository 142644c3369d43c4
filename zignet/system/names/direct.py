"""The mechanisms without a resolver to talk to: /etc/resolv.conf itself, port 53 on the TUN, and none. Pure."""

from __future__ import annotations

from zignet.system.names.host import Host
from zignet.system.names.plan import File, Plan, server53
from zignet.system.names.resolv_conf import PATH, compose
from zignet.system.names.wanted import Mode, NamesError, Wanted

__all__ = ["hijack", "hijackable", "off", "resolv_conf"]


def resolv_conf(host: Host, wanted: Wanted) -> Plan:
    """Our server in /etc/resolv.conf, the rest of the file as it was. Raises `NamesError` without port 53."""
    server = server53(wanted)
    file = File(PATH, compose(server, host.content, host.target, wanted.owner))
    return Plan(Mode.RESOLVCONF, (file,), (f"{PATH}: nameserver {server}",))


def hijackable(host: Host, wanted: Wanted) -> str | None:
    """Why the queries of this host's programs would not be seen on the TUN; None where they would."""
    if not wanted.captures:
        return (
            "the node does not answer queries that enter the TUN: `proxy.mode` is not global, or port 53 of its own "
            "addresses is taken"
        )
    if not host.nameservers:
        return f"{PATH} names no server"
    for server in host.nameservers:
        if not host.reaches_tun(server, wanted.bypass):
            return f"the way to the resolver {server} does not lead through {wanted.link}"
    return None


def hijack(host: Host, wanted: Wanted) -> Plan:
    """Nothing to do. Raises `NamesError` where it would have no effect."""
    if (why := hijackable(host, wanted)) is None:
        return Plan(Mode.HIJACK)
    if wanted.captures:
        why += (
            f", so queries would not be seen there. Name a server in {PATH} that is neither on the local network nor "
            "in `proxy.bypass`, or set `dns.mode: resolvconf`."
        )
    raise NamesError(why)


def off(host: Host, wanted: Wanted) -> Plan:
    """Nothing at all."""
    return Plan(Mode.OFF)
