"""Hosts as proxies want to read them: names that are safe to send, addresses as text."""

from __future__ import annotations

import re
from ipaddress import IPv6Address

from nat.exit import Target

__all__ = ["address_text", "authority", "host_port", "is_sendable"]

_SENDABLE = re.compile(r"[A-Za-z0-9._-]{1,255}", re.ASCII)


def is_sendable(name: str) -> bool:
    """Whether a name can stand in a proxy request.

    Names come off the wire, from a stranger's ClientHello or Host header. One with a line break would add
    headers of its own to an HTTP request, and one of more than 255 bytes does not fit a SOCKS5 request.
    """
    return _SENDABLE.fullmatch(name) is not None


def address_text(address: bytes) -> str:
    """4 or 16 bytes as people write them."""
    if len(address) == 4:
        return ".".join(map(str, address))
    return IPv6Address(address).compressed


def host_port(address: bytes, port: int) -> str:
    """`192.0.2.1:80` or `[2001:db8::1]:80`."""
    text = address_text(address)
    return f"{text}:{port}" if len(address) == 4 else f"[{text}]:{port}"


def authority(target: Target) -> str:
    """The target in authority form (RFC 9112 §3.2.3): its name where it has one, else its address."""
    if target.name is not None:
        return f"{target.name}:{target.port}"
    return host_port(target.address, target.port)
