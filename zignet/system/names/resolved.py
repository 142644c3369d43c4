"""systemd-resolved: our server and its domains belong to our link, and go with it. Nothing is written to disk.

resolvectl(1), systemd-resolved.service(8) "Protocols and Routing". DNSSEC is off on this link only: `zignet` is in
no signed parent, so a validating resolver would have to call it bogus.
"""

from __future__ import annotations

from zignet.system.names.host import Host
from zignet.system.names.plan import Command, Plan
from zignet.system.names.wanted import Mode, NamesError, Wanted

__all__ = ["UPSTREAM_FILE", "plan", "undo"]

UPSTREAM_FILE = "/run/systemd/resolve/resolv.conf"
_STUBS = ("127.0.0.53", "127.0.0.54")


def governs(host: Host) -> bool:
    """Whether programs here ask it."""
    servers = host.nameservers
    return host.resolved and bool(servers) and all(str(server) in _STUBS for server in servers)


def plan(host: Host, wanted: Wanted) -> Plan:
    """Raises `NamesError` where it can't be told."""
    if not host.resolved or "resolvectl" not in host.programs:
        raise NamesError("systemd-resolved does not run here, or resolvectl is missing")
    if not wanted.index:
        raise NamesError("systemd-resolved needs a link to tie names to")
    link, server = wanted.link, wanted.server53 or wanted.servers[0]  # a port: systemd 246 and later
    domains = ("~.",) if wanted.everything else tuple(f"~{domain}" for domain in wanted.domains)
    commands: tuple[Command, ...] = (
        ("resolvectl", "dns", link, str(server)),
        ("resolvectl", "default-route", link, "yes" if wanted.everything else "no"),
        *(("resolvectl", protocol, link, "no") for protocol in ("dnssec", "dnsovertls", "llmnr", "mdns")),
        ("resolvectl", "domain", link, *domains),
        ("resolvectl", "flush-caches"),
    )
    changes = (f"systemd-resolved: link {link}: server {server}, domains {' '.join(domains)}",)
    return Plan(Mode.RESOLVED, commands, changes, UPSTREAM_FILE)


def undo(host: Host, link: str) -> tuple[Command, ...]:
    """What to call once our link is to be forgotten; nothing where it is gone already."""
    if "resolvectl" not in host.programs or not host.resolved:
        return ()
    return (("resolvectl", "revert", link), ("resolvectl", "flush-caches"))
