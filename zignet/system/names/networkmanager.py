"""NetworkManager: a file for the dnsmasq that it runs; where it runs none, it is asked to leave resolv.conf to us.

With `rc-manager=unmanaged` it goes on writing the resolvers that it learns to /run/NetworkManager, so names that are
not ours follow the network that this host is in. NetworkManager.conf(5); nmcli(1), `general reload`. Pure.
"""

from __future__ import annotations

from zignet.system.names import dnsmasq
from zignet.system.names.host import Host
from zignet.system.names.plan import Command, File, Plan, heading, server53
from zignet.system.names.resolv_conf import PATH, compose
from zignet.system.names.wanted import Mode, NamesError, Wanted

__all__ = ["governs", "plan", "undo"]

DNSMASQ_FILE = "/etc/NetworkManager/dnsmasq.d/zignet.conf"
UNMANAGED_FILE = "/etc/NetworkManager/conf.d/zignet.conf"
UPSTREAM_FILE = "/run/NetworkManager/no-stub-resolv.conf"

_RELOAD: tuple[Command, ...] = (("nmcli", "general", "reload", "conf"),)
_RELOAD_PLUGIN: tuple[Command, ...] = (("nmcli", "general", "reload", "dns-full"),)


def governs(host: Host) -> bool:
    """Whether what programs ask is its doing."""
    return host.manager and host.manager_writes and "nmcli" in host.programs


def runs_dnsmasq(host: Host) -> bool:
    """Whether programs ask the dnsmasq that it runs."""
    return host.manager_plugin == "dnsmasq" and any(server.is_loopback for server in host.nameservers)


def plan(host: Host, wanted: Wanted) -> Plan:
    """Raises `NamesError` where it can't be told."""
    if not host.manager or "nmcli" not in host.programs:
        raise NamesError("NetworkManager does not run here, or nmcli is missing")
    if runs_dnsmasq(host) and not wanted.everything:
        changes = (f"{DNSMASQ_FILE}: {' '.join(wanted.domains)} to {wanted.servers[0]}",)
        steps: tuple[File | Command, ...] = (File(DNSMASQ_FILE, dnsmasq.content(wanted)), *_RELOAD_PLUGIN)
        return Plan(Mode.NETWORKMANAGER, steps, changes, UPSTREAM_FILE)
    server = server53(wanted)
    return Plan(
        Mode.NETWORKMANAGER,
        (
            File(UNMANAGED_FILE, f"{heading()}[main]\nrc-manager=unmanaged\n".encode()),
            *_RELOAD,
            File(PATH, compose(server, host.content, host.target, wanted.owner)),
        ),
        (f"{UNMANAGED_FILE}: NetworkManager leaves {PATH} alone", f"{PATH}: nameserver {server}"),
        UPSTREAM_FILE,
    )


def undo(host: Host) -> tuple[Command, ...]:
    """What to call once the files are gone."""
    return (*_RELOAD, *_RELOAD_PLUGIN) if host.manager and "nmcli" in host.programs else ()
