"""The IPv6 address of a key: the same on every host (protocol §1)."""

from __future__ import annotations

from hashlib import blake2s
from ipaddress import IPv6Address, IPv6Network

__all__ = ["address6"]

_CONTEXT = b"ZigNet IPv6"


def address6(network: IPv6Network, x: bytes) -> IPv6Address:
    """The network's bits, a zero bit, and as many bits of the hash of the X25519 form as there is room for.

    79 of them in a /48. The zero bit leaves the upper half of the network to each host's own use.
    """
    room = 127 - network.prefixlen  # bits
    digest = int.from_bytes(blake2s(_CONTEXT + x).digest(), "big")
    return IPv6Address(int(network.network_address) | digest >> (256 - room))
