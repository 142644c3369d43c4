"""The services of `inbound`: what those who are admitted may reach on this host.

inbound:
  services:
    - {proto: tcp, port: 22, allow: [alice, "file:admins.txt"]}
    - {proto: tcp, port: "80,443,8000-8100"}       # for all who are admitted
    - {proto: icmp}
    - {exit: internet, allow: [alice]}             # as `exit: {allow: [alice]}`

Without the list, and with `all` in its place, everything is open to them; with it, what it does not name is closed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from zignet.config import values
from zignet.config.document import Items, Node, Scalar, Table
from zignet.config.members import check_members, read_members
from zignet.config.reader import Reading, many, one, read_fields, setting
from zignet.routing import did_you_mean

__all__ = ["Ports", "ServiceConfig", "check_services", "read_services"]

_MOST = 256  # services
_PORT = values.whole(0, 65535)

Ports = tuple[tuple[int, int], ...]  # first and last


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """Something that some may reach: a protocol and ports of this host, or the internet by it."""

    proto: str = setting("", one(values.choice("tcp", "udp", "icmp")))  # "": `exit` says what
    ports: Ports = ()  # (): all
    allow: tuple[str, ...] | None = None  # peers' names, keys, `file:` and a path; None: all who are admitted
    exit: str = setting("", one(values.choice("internet")))
    line: int = field(default=0, compare=False)  # in the configuration

    def shown(self) -> dict[str, Any]:
        """As the file has it."""
        shown: dict[str, Any] = {"exit": self.exit} if self.exit else {"proto": self.proto}
        if self.ports:
            shown["port"] = ",".join(str(low) if low == high else f"{low}-{high}" for low, high in self.ports)
        if self.allow is not None:
            shown["allow"] = list(self.allow)
        return shown


def _ports(node: Node, key: str, reading: Reading) -> Any:
    """`22`, `"80,443"`, `"8000-8100"`, or a list of such."""
    found = (
        many(_some_ports)(node, key, reading)
        if isinstance(node, Items)
        else one(_some_ports)(node, key, reading)
    )
    if isinstance(node, Items) and isinstance(found, tuple):
        return tuple(pair for some in found for pair in some)
    return found


def _some_ports(text: str) -> Ports:
    found = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        low = _PORT(first)
        high = _PORT(last) if dash else low
        if low > high:
            raise ValueError(f'"{part.strip()}": the first is more than the last')
        found.append((low, high))
    return tuple(found)


def read_services(node: Node, key: str, reading: Reading) -> tuple[ServiceConfig, ...] | None:
    """The reader of `inbound.services`."""
    if isinstance(node, Scalar) and node.is_null:
        reading.complain(node.line, key, "nothing stands here: [] closes everything, and all opens it")
        return None
    if isinstance(node, Scalar) and node.text == "all":
        return None
    if not isinstance(node, Items):
        reading.complain(node.line, key, "expected all, or a list such as [{proto: tcp, port: 22}]")
        return None
    if len(node.items) > _MOST:
        reading.complain(node.line, key, f"more than {_MOST} services")
        return None
    found = []
    for at, item in enumerate(node.items):
        place = f"{key}[{at}]"
        if isinstance(item, Table):
            found.append(_service(item, place, reading))
        else:
            reading.complain(item.line, place, "expected a service, such as {proto: tcp, port: 22}")
    return tuple(found)


def _service(item: Table, key: str, reading: Reading) -> ServiceConfig:
    readers = {"port": _ports, "allow": read_members}
    known = {"proto", "exit", *readers}
    for word, (line, _) in item.entries.items():
        if word not in known:
            reading.complain(line, f"{key}.{word}", f"unknown key{did_you_mean(word, known)}")
    entries = {word: entry for word, entry in item.entries.items() if word in known}
    fields: dict[str, Any] = read_fields(
        ServiceConfig,
        Table(item.line, {word: entry for word, entry in entries.items() if word in ("proto", "exit")}),
        key,
        reading,
    )
    for word, name in (("port", "ports"), ("allow", "allow")):
        if word in entries:
            line, node = entries[word]
            value = readers[word](node, f"{key}.{word}", reading)
            if isinstance(value, tuple):
                fields[name] = value
    service = ServiceConfig(**fields, line=item.line)
    if ("proto" in entries) == ("exit" in entries):
        reading.complain(item.line, key, "expected either proto (tcp, udp, icmp) or exit: internet")
    elif "port" in entries and service.proto not in ("tcp", "udp", ""):
        reading.complain(item.line, f"{key}.port", "icmp has no ports")
    elif "port" in entries and "exit" in entries:
        reading.complain(item.line, f"{key}.port", "the ports of an exit stand in the section exit")
    return service


def check_services(
    services: Iterable[ServiceConfig], names: Iterable[str], offered: bool, reading: Reading
) -> None:
    """Complain about members that nobody is, and of what is said twice. `offered`: `exit.allow` says something too."""
    names = list(names)
    exits = [service for service in services if service.exit]
    for service in services:
        check_members(service.allow or (), names, service.line, "inbound.services", reading)
    if exits and offered:
        reading.complain(
            exits[0].line,
            "inbound.services",
            "exit: internet stands here, and exit.allow says the same; keep one",
        )
    for service in exits[1:]:
        reading.complain(service.line, "inbound.services", "exit: internet stands here twice")
