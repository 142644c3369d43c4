"""What single values mean. Each function takes the text and gives the value, or raises `ValueError`."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from zignet.routing import RESERVED, ascii_name, did_you_mean

__all__ = [
    "address4",
    "choice",
    "device",
    "duration",
    "fake4",
    "fake6",
    "flag",
    "host_port",
    "interface",
    "keepalive",
    "name_server",
    "names",
    "network",
    "peer_name",
    "range4",
    "range6",
    "size",
    "some_text",
    "table",
    "udp_address",
    "whole",
]

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(ms|s|m|min|h|d)?", re.ASCII)
_SECONDS = {"ms": 0.001, None: 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"([0-9]+) ?(?:(B)|([kKM])(?:i?B)?)?", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}", re.ASCII)
_PEER = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", re.ASCII)  # one DNS label
_LIKE_A_KEY = re.compile(r"[a-z2-7]{56}", re.ASCII)

_FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_KERNELS_TABLES = {253: "default", 254: "main", 255: "local"}  # /etc/iproute2/rt_tables
_NOT_PEERS = frozenset({"admin", *(word.lower() for word in RESERVED)})
_INTERFACE = 15  # bytes, IFNAMSIZ without its zero


def some_text(text: str) -> str:
    """Anything that is not empty and prints."""
    if not text or not text.isprintable():
        raise ValueError("expected some text")
    return text


def flag(text: str) -> bool:
    """true or false, in any of YAML's words."""
    value = _FLAGS.get(text.lower())
    if value is None:
        raise ValueError(f'"{text}" is neither true nor false')
    return value


def choice(*words: str) -> Callable[[str], str]:
    """One of these words."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f'"{text}" is not one of {", ".join(words)}{_near(text, words)}')
        return text

    return read


def _near(text: str, words: tuple[str, ...]) -> str:
    """The nearest word, but not the list of all when it was just given."""
    near = did_you_mean(text, words)
    return near if near.startswith("; did") else ""


def whole(low: int, high: int) -> Callable[[str], int]:
    """A whole number in decimal or, as 0x…, in hexadecimal."""

    def read(text: str) -> int:
        try:
            value = int(text, 0) if len(text) <= 20 else None
        except ValueError:
            value = None
        if value is None:
            raise ValueError(f'"{text}" is not a whole number')
        if not low <= value <= high:
            raise ValueError(f"{text} is not within {low} to {high}")
        return value

    return read


def duration(low: float, high: float) -> Callable[[str], float]:
    """Seconds from `300ms`, `5s`, `2m`, `1h`, `1d` or a plain number of seconds."""

    def read(text: str) -> float:
        found = _DURATION.fullmatch(text) if len(text) <= 20 else None
        if found is None:
            raise ValueError(f'"{text}" is not a duration such as 300ms, 5s, 2m or 1h')
        seconds = round(float(found[1]) * _SECONDS[found[2]], 6)
        if not low <= seconds <= high:
            raise ValueError(f"{text} is not within {low:g} to {high:g} seconds")
        return seconds

    return read


def size(low: int, high: int) -> Callable[[str], int]:
    """Bytes from `16384`, `16k`, `16KiB` or `1MiB`; every multiple is of 1024."""

    def read(text: str) -> int:
        found = _SIZE.fullmatch(text) if len(text) <= 20 else None
        if found is None:
            raise ValueError(f'"{text}" is not a size such as 16384 or 16KiB')
        value = int(found[1]) << {None: 0, "k": 10, "K": 10, "M": 20}[found[3]]
        if not low <= value <= high:
            raise ValueError(f"{text} is not within {low} to {high} bytes")
        return value

    return read


def network(text: str) -> IPv4Network | IPv6Network:
    """A network without host bits, or a single address."""
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        loose = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f'"{text}" is not a network such as 192.168.0.0/16') from None
    raise ValueError(f'"{text}" is an address inside a network; did you mean "{loose}"?')


def range4(text: str) -> IPv4Network:
    """ZigNet's own IPv4 range: /8 to /24, ordinary unicast."""
    return _range4(text, 24, "100.64.0.0/10")


def fake4(text: str) -> IPv4Network:
    """The pool of fake IPv4 addresses: /8 to /28, ordinary unicast."""
    return _range4(text, 28, "198.19.0.0/16")


def _range4(text: str, longest: int, usual: str) -> IPv4Network:
    found = network(text)
    if not isinstance(found, IPv4Network) or not 8 <= found.prefixlen <= longest:
        raise ValueError(f'"{text}" is not an IPv4 network of /8 to /{longest}, such as {usual}')
    if found.is_loopback or found.is_multicast or found.is_link_local or found.network_address.packed[0] == 0:
        raise ValueError(f"{text} has a meaning of its own to every host; {usual} is the usual choice")
    return found


def range6(text: str) -> IPv6Network:
    """ZigNet's own IPv6 range: /16 to /64, ordinary unicast."""
    return _range6(text, 64, "fd5a:6967:6e65::/48", "choose one from fd00::/8")


def fake6(text: str) -> IPv6Network:
    """The pool of fake IPv6 addresses: /16 to /96, ordinary unicast."""
    return _range6(text, 96, "2001:2::/64", "2001:2::/64 is the usual choice")


def _range6(text: str, longest: int, usual: str, advice: str) -> IPv6Network:
    found = network(text)
    if not isinstance(found, IPv6Network) or not 16 <= found.prefixlen <= longest:
        raise ValueError(f'"{text}" is not an IPv6 network of /16 to /{longest}, such as {usual}')
    if (
        found.is_loopback
        or found.is_multicast
        or found.is_link_local
        or int(found.network_address) >> 96 == 0
    ):
        raise ValueError(f"{text} has a meaning of its own to every host; {advice}")
    return found


def name_server(text: str) -> tuple[str, int]:
    """`192.0.2.1`, `192.0.2.1:5353`, `2001:db8::1` or `[2001:db8::1]:5353`; port 53 unless it says so."""
    host, port = text, "53"
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed:
            host = ""
        if rest:
            port = rest.removeprefix(":") if rest.startswith(":") else ""
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        found = ip_address(host)
    except ValueError:
        raise ValueError(f'"{text}" is not an address such as 192.0.2.1 or [2001:db8::1]:53') from None
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise ValueError(f'"{text}" does not end in a port from 1 to 65535')
    return str(found), int(port)


def names(text: str) -> str:
    """A name, or `*.name` for it and all below it."""
    for front in ("*.", "+.", "."):
        if text.startswith(front):
            return "*." + ascii_name(text[len(front) :])
    return ascii_name(text)


def host_port(text: str) -> str:
    """`192.0.2.1:1080`, `[2001:db8::1]:1080` or `proxy.example:1080`, unchanged."""
    host, colon, port = text.rpartition(":")
    if not (colon and port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise ValueError(f'"{text}" is not host:port, for example 192.0.2.10:1080')
    if host.startswith("[") and host.endswith("]"):
        try:
            IPv6Address(host[1:-1])
        except AddressValueError:
            raise ValueError(f'"{host}" is not an IPv6 address in brackets') from None
    elif ":" in host:
        raise ValueError(f"an IPv6 address goes in brackets: [{host}]:{port}")
    elif _HOST.fullmatch(host) is None:
        raise ValueError(f'"{host}" is not a host name or an address')
    return text


def udp_address(text: str) -> tuple[str, int]:
    """Address and port of `udp://[::]:51830`; port 0 is any that is free."""
    scheme, mark, rest = text.partition("://")
    if not mark or scheme != "udp":
        raise ValueError(f'"{text}" is not a UDP address such as udp://[::]:51830')
    host, colon, port = rest.rpartition(":")
    if not (colon and port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise ValueError(f'"{text}" does not end in a port, as in udp://[::]:51830')
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        found = ip_address(bare)
    except ValueError:
        raise ValueError(
            f'"{host}" is not an address of this host; [::] is all of them, IPv4 and IPv6'
        ) from None
    if (found.version == 6) != (bare != host) or getattr(found, "scope_id", None) or found.is_multicast:
        raise ValueError(f'"{text}" is not an address to listen on, such as udp://[::]:51830')
    return str(found), int(port)


def peer_name(text: str) -> str:
    """What a peer is called here: a DNS label, in which `_` is allowed."""
    if _PEER.fullmatch(text) is None:
        raise ValueError(
            f'"{text}" is not a name for a peer: 1 to 63 letters, digits, "-" and "_", with no "-" at an end'
        )
    folded = text.lower()
    if folded in _NOT_PEERS:
        raise ValueError(f'"{text}" means something else already; choose another name')
    if len(text) == 56 and _LIKE_A_KEY.fullmatch(folded):
        raise ValueError(f'"{text}" looks like the name of a key, so it can\'t be the name of a peer')
    return text


def keepalive(text: str) -> int:
    """Whole seconds between two keepalives; 0, or `off`, for none."""
    if text.lower() in ("off", "no", "false"):
        return 0
    seconds = duration(0, 65535)(text)
    if seconds != int(seconds):
        raise ValueError(f"{text} is not a whole number of seconds")
    return int(seconds)


def address4(text: str) -> IPv4Address:
    """An IPv4 address."""
    try:
        return IPv4Address(text)
    except AddressValueError:
        raise ValueError(f'"{text}" is not an IPv4 address such as 100.64.0.9') from None


def interface(text: str) -> str:
    """The name of a network interface, as the kernel allows it."""
    if not 1 <= len(text.encode(errors="replace")) <= _INTERFACE:
        raise ValueError(f"an interface's name has 1 to {_INTERFACE} bytes")
    if text in (".", "..") or not text.isprintable() or any(one in "/: " for one in text):
        raise ValueError(f'"{text}" is not a name that an interface can have')
    return text


def device(text: str) -> int | None:
    """Which TUN: None for `auto` (we make it), N for `fd:N` (given to us, open)."""
    if text == "auto":
        return None
    number = text.removeprefix("fd:")
    if number == text or not (number.isascii() and number.isdigit() and len(number) <= 9):
        raise ValueError(f'"{text}" is neither auto nor fd:N')
    return int(number)


def table(text: str) -> int:
    """The number of a routing table that is not one of the kernel's own."""
    number = whole(1, 0xFFFFFFFE)(text)
    if number in _KERNELS_TABLES:
        raise ValueError(f"{text} is the kernel's table {_KERNELS_TABLES[number]}; choose another")
    return number
