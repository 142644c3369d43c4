"""dnsmasq: a file in a directory that it reads. Our domains go to our server, everything else as before. Pure.

`server=` lines of files are read at start only (dnsmasq(8), NOTES: SIGHUP does not re-read the configuration), so it
is started again. A domain with a server of its own is not validated by DNSSEC there. `rebind-domain-ok`: our
addresses are private ones, which `stop-dns-rebind` would drop.
"""

from __future__ import annotations

from zignet.system.names.host import Host
from zignet.system.names.plan import Command, File, Plan, heading
from zignet.system.names.wanted import Mode, NamesError, Wanted

__all__ = ["content", "governs", "plan", "undo"]

NAME = "zignet.conf"


def content(wanted: Wanted) -> bytes:
    """The file, for dnsmasq on its own and for NetworkManager's."""
    server = wanted.servers[0]
    lines = [f"server=/{domain}/{server.address}#{server.port}\n" for domain in wanted.domains]
    lines += [f"rebind-domain-ok=/{domain}/\n" for domain in wanted.domains]
    return "".join((heading(), *lines)).encode()


def governs(host: Host) -> bool:
    """Whether programs here ask it, and it reads a directory of ours."""
    servers = host.nameservers
    local = bool(servers) and all(server.is_loopback for server in servers)
    return local and host.dnsmasq is not None and host.dnsmasq.directory is not None and bool(_restart(host))


def plan(host: Host, wanted: Wanted) -> Plan:
    """Raises `NamesError` where it can't be told."""
    if host.dnsmasq is None:
        raise NamesError("dnsmasq does not run here")
    if host.dnsmasq.directory is None:
        raise NamesError("dnsmasq reads no directory: put `conf-dir=/etc/dnsmasq.d` into its configuration")
    if wanted.everything:
        raise NamesError("all names can't be led here by dnsmasq: its own upstreams would be lost")
    if not (commands := _restart(host)):
        raise NamesError("there is neither systemctl nor service to start dnsmasq again")
    path = f"{host.dnsmasq.directory.rstrip('/')}/{NAME}"
    changes = (f"{path}: {' '.join(wanted.domains)} to {wanted.servers[0]}",)
    return Plan(Mode.DNSMASQ, (File(path, content(wanted)), *commands), changes, host.dnsmasq.resolv_file)


def undo(host: Host) -> tuple[Command, ...]:
    """What to call once the file is gone."""
    return _restart(host) if host.dnsmasq is not None else ()


def _restart(host: Host) -> tuple[Command, ...]:
    if "systemctl" in host.programs:
        return (("systemctl", "restart", "dnsmasq.service"),)
    return (("service", "dnsmasq", "restart"),) if "service" in host.programs else ()
