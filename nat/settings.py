"""What the engine's owner may choose."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Times in seconds, sizes in bytes, counts in flows."""

    flows: int = 65_536  # TCP flows at once
    half_open: int = 8_192  # of them: dialled, or not accepted yet
    udp_flows: int = 16_384
    sniff_s: float = 0.3
    sniff_bytes: int = 16_384
    dial_s: float = 30.0
    tcp_idle_s: float = 3_600.0
    udp_idle_s: float = 60.0
    dns_idle_s: float = 30.0
    server_first: frozenset[int] = (
        frozenset()
    )  # TCP ports where no name is waited for, besides the known ones
