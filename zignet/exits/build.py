"""Exits from the configuration: names of proxies are resolved and passwords are read once, at load time."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from zignet.exits.block import Block
from zignet.exits.direct import Direct
from zignet.exits.http import Http
from zignet.exits.peer import PeerExit
from zignet.exits.socks5 import Socks5

if TYPE_CHECKING:
    from zignet.config import Config, ExitConfig, PeerConfig

__all__ = ["BUILT_IN", "AnyExit", "ExitSetupError", "build_exits", "peers_in_rules"]

AnyExit = Direct | Block | Socks5 | Http | PeerExit

BUILT_IN: Mapping[str, AnyExit] = {"direct": Direct(), "block": Block()}
_WORDS = re.compile(r"\s*(?:,|->|→)\s*|^\s+|(?:\s+(?:by-name|packet))?\s*$", re.IGNORECASE)
PASSWORD_LIMIT = 1024  # bytes of a password file


class ExitSetupError(Exception):
    """An exit can't be made as configured; the text names the exit and what to change."""


def build_exits(config: Config) -> dict[str, AnyExit]:
    """Every exit of the configuration by name, peers that a rule names included; `direct` and `block` always.

    Blocks while a proxy's host name is resolved, so call it before the packet loop runs, or beside it.
    Raises `ExitSetupError`.
    """
    exits = dict(BUILT_IN)
    for name, settings in config.exits.items():
        exits[name] = _build(name, settings)
    for peer in peers_in_rules(config):
        exits[peer.name] = PeerExit(peer.name, peer.key)
    return exits


def peers_in_rules(config: Config) -> list[PeerConfig]:
    """The peers that some rule line names: of 100,000 few are exits."""
    if not config.peers or not config.routes:
        return []
    named = {peer.name: peer for peer in config.peers}
    found = {word for text, _ in config.routes for word in _WORDS.split(text) if word in named}
    return [named[word] for word in sorted(found)]


def _build(name: str, settings: ExitConfig) -> AnyExit:
    device = settings.interface or ""
    if settings.type == "direct":
        return Direct(name, device)
    if settings.type == "block":
        return Block(name)
    address, port = _resolve(name, settings.address or "")
    username = settings.username or None
    password = _password(name, settings.password_file)
    try:
        if settings.type == "socks5":
            return Socks5(name, address, port, username, password, settings.udp, device)
        return Http(name, address, port, username, password, device)
    except ValueError as error:
        raise ExitSetupError(f"exit {name}: {error}") from error


def _resolve(name: str, text: str) -> tuple[bytes, int]:
    """`host:port` or `[v6]:port` as bytes and a number; a host name by the system's resolver."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ExitSetupError(f"exit {name}: {text!r} is not host:port, for example 192.0.2.10:1080")
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ExitSetupError(
            f"exit {name}: the proxy's host {host} can't be resolved ({reason}). "
            "Write its address instead of its name, or see whether DNS works on this machine."
        ) from error
    family, *_, where = found[0]
    return socket.inet_pton(family, str(where[0]).partition("%")[0]), int(port)


def _password(name: str, path: Path | None) -> str:
    """The first line of the file. Who may read it was checked with the configuration."""
    if path is None:
        return ""
    try:
        with path.open("rb") as file:
            content = file.read(PASSWORD_LIMIT + 1)
    except OSError as error:
        raise ExitSetupError(f"exit {name}: can't read the password file {path}: {error.strerror}") from error
    if len(content) > PASSWORD_LIMIT:
        raise ExitSetupError(f"exit {name}: the password file {path} is longer than {PASSWORD_LIMIT} bytes")
    try:
        return content.decode().partition("\n")[0].rstrip("\r")
    except UnicodeDecodeError as error:
        raise ExitSetupError(f"exit {name}: the password file {path} is not UTF-8 text") from error
