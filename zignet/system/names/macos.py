"""macOS: a file per domain below /etc/resolver, which may name a port. resolver(5). Pure."""

from __future__ import annotations

from zignet.system.names.host import Host
from zignet.system.names.plan import File, Plan, heading
from zignet.system.names.wanted import Mode, NamesError, Wanted

__all__ = ["files", "plan"]

DIRECTORY = "/etc/resolver"


def files(wanted: Wanted) -> tuple[File, ...]:
    """One for each domain, to the first server. The system notices them by itself."""
    server = wanted.servers[0]
    content = f"{heading()}nameserver {server.address}\nport {server.port}\n".encode()
    return tuple(File(f"{DIRECTORY}/{domain}", content) for domain in wanted.domains)


def plan(host: Host, wanted: Wanted) -> Plan:
    """Raises `NamesError` where it can't be told."""
    if host.system != "darwin":
        raise NamesError("/etc/resolver means something on macOS only")
    if wanted.everything:
        raise NamesError(
            "/etc/resolver takes domains, not all names: name the domains that need ZigNet in the configuration"
        )
    made = files(wanted)
    return Plan(Mode.RESOLVER, made, tuple(f"{file.path}: to {wanted.servers[0]}" for file in made))
