"""The section `publish`: services of this host that contacts, or others, may reach, and are told of.

publish:
  - {name: web, proto: tcp, port: 80}                         # to all contacts
  - {name: music, port: 8000, to: [alice, "tag:friend"]}
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from zignet.config import values
from zignet.config.document import Items, Node, Scalar, Table
from zignet.config.members import read_members
from zignet.config.reader import Reading, one, read_fields, setting

__all__ = ["ALL", "CONTACTS", "MOST", "TAG", "PublishConfig", "read_publish", "service_name"]

CONTACTS = "contacts"
ALL = "all"  # who is admitted at all
TAG = "tag:"
MOST = 32  # services: as many as a peer can be told of
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


def service_name(text: str) -> str:
    """A DNS label in lower case. Raises ValueError."""
    folded = text.lower()
    if _NAME.fullmatch(folded) is None:
        raise ValueError(f'"{text}" is not a name for a service: 1 to 63 letters, digits, "-" and "_"')
    return folded


def _to(node: Node, key: str, reading: Reading) -> Any:
    """`contacts`, `all`, or a list."""
    if isinstance(node, Scalar) and node.text in (CONTACTS, ALL):
        return (node.text,)
    return read_members(node, key, reading)


@dataclass(frozen=True, slots=True)
class PublishConfig:
    """One service."""

    name: str = setting("", one(service_name))
    proto: str = setting("tcp", one(values.choice("tcp", "udp")))
    port: int = setting(0, one(values.whole(1, 65535)))
    to: tuple[str, ...] = setting((CONTACTS,), _to)  # or members; contacts by name or `tag:`, too


def read_publish(node: Node, key: str, reading: Reading) -> tuple[PublishConfig, ...]:
    """The reader of `publish`."""
    if not isinstance(node, Items):
        if not (isinstance(node, Scalar) and node.is_null):
            reading.complain(node.line, key, "expected a list, such as [{name: web, port: 80}]")
        return ()
    if len(node.items) > MOST:
        reading.complain(node.line, key, f"more than {MOST} services: a contact could not be told of all")
    found: dict[str, PublishConfig] = {}
    for at, item in enumerate(node.items):
        place = f"{key}[{at}]"
        if not isinstance(item, Table):
            reading.complain(item.line, place, "expected a service, such as {name: web, port: 80}")
            continue
        service = PublishConfig(**read_fields(PublishConfig, item, place, reading))
        for word in ("name", "port"):
            if word not in item.entries:
                reading.complain(item.line, f"{place}.{word}", "missing; every service has a name and a port")
        if service.name in found:
            reading.complain(item.line, f"{place}.name", f'"{service.name}" is published twice')
        found[service.name] = service
    return tuple(found.values())
