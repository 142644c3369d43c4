"""How often one address may make us do curve arithmetic under load (protocol.md §3)."""

from __future__ import annotations

from collections import OrderedDict

__all__ = ["RateLimiter"]

RATE = 20.0  # a second
BURST = 5
MOST_ADDRESSES = 10_000

_MAPPED = bytes(10) + b"\xff\xff"  # RFC 4291 §2.5.5.2: an IPv4 address in the form of an IPv6 one
_ROUNDING = 1e-9  # s, of sums of intervals
_NETWORK = 8  # bytes of an IPv6 address that one site is given: a /64


class RateLimiter:
    """A token bucket for each IPv4 address and each IPv6 /64, O(1) each and bounded: the least recent ones go.

    Kept is only when a bucket will be full again, so one that is full is worth as much as none. Ask only for
    addresses that have proved themselves by mac2, or forged ones push out the real.
    """

    __slots__ = ("_burst_s", "_full_at", "_interval_s", "_most")

    def __init__(self, rate: float = RATE, burst: int = BURST, most: int = MOST_ADDRESSES) -> None:
        self._interval_s = 1 / rate
        self._burst_s = (burst - 1) / rate
        self._most = most
        self._full_at: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def allow(self, address: bytes, now: float) -> bool:
        """Whether this address may now: 16 bytes, IPv4 mapped; a port behind them is ignored.

        What was refused does not count against it.
        """
        key = address[12:16] if address.startswith(_MAPPED) else address[:_NETWORK]
        full_at = max(self._full_at.get(key, now), now)
        allowed = full_at - now <= self._burst_s + _ROUNDING
        if allowed:
            full_at += self._interval_s
        self._full_at[key] = full_at
        self._full_at.move_to_end(key)
        if len(self._full_at) > self._most:
            self._full_at.popitem(last=False)
        return allowed
