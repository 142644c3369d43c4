"""`zignet whoami`: the public side of this node's identity."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from zignet.cli.files import load

if TYPE_CHECKING:
    from zignet.config import Config
    from zignet.identity import PublicKey

__all__ = ["Identity", "identity", "lines", "of_key"]


class Identity(TypedDict):
    """What `zignet whoami --json` prints."""

    name: str
    base58: str
    hex: str
    x25519: str  # hexadecimal
    address6: str
    key_file: str


def identity(path: Path | None) -> Identity:
    """This node's. Raises `KeyFileError` where there is no key, `ConfigError`."""
    from zignet.identity import read_key

    config = load(path)
    return of_key(read_key(config.identity_file).public, config)


def of_key(key: PublicKey, config: Config) -> Identity:
    """The same for a key that is at hand."""
    from zignet.identity import address6

    return Identity(
        name=key.name,
        base58=key.base58,
        hex=key.hex,
        x25519=key.x.hex(),
        address6=str(address6(config.tun.range6, key.x)),
        key_file=str(config.identity_file),
    )


def lines(who: Identity) -> str:
    """For people."""
    return (
        f"name     {who['name']}\n"
        f"base58   {who['base58']}\n"
        f"hex      {who['hex']}\n"
        f"IPv6     {who['address6']}\n"
        f"key      {who['key_file']}"
    )
