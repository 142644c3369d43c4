"""What a handshake must pass before it costs any curve arithmetic: mac1, and under load a cookie and a rate."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from zignet.noise import MacChecker, RateLimiter

if TYPE_CHECKING:
    from nat.loop import Loop
    from zignet.transport import Udp

__all__ = ["FREE_S", "SLOT_S", "Gate"]

# Of each slot of time so much may go into handshakes for whoever asks. Beyond that this node is under load, and asks
# for cookies. It is time and not a number, because a handshake takes 0.2 ms on one machine and 4 ms on another. A node
# that is busy with data spends less on them; it is under load when they have to wait (`Door`).
SLOT_S = 0.25
FREE_S = SLOT_S / 4


class Gate:
    """Cheapest checks first (protocol §3)."""

    def __init__(self, public_x: bytes, loop: Loop, transport: Udp, dropped: Counter[str]) -> None:
        self._macs = MacChecker(public_x)
        self._limit = RateLimiter()
        self._loop = loop
        self._transport = transport
        self._dropped = dropped
        self._slot = 0
        self._left_s = FREE_S

    @property
    def under_load(self) -> bool:
        """Whether cookies are asked for at the moment."""
        return self._left_s <= 0 and int(self._loop.now / SLOT_S) - self._slot <= 1

    def passes(self, message: bytes, address: Any) -> bool:
        """Whether this initiation or response is worth opening. It may have been answered with a cookie instead."""
        if not self._macs.mac1_ok(message):
            self._dropped["handshake: wrong mac1"] += 1
            return False
        self._begin()
        if self._left_s > 0:
            return True
        now = self._loop.now
        packed = self._transport.packed(address)
        if not self._macs.mac2_ok(message, packed, now):
            self._dropped["handshake: under load, a cookie was sent"] += 1
            self._transport.send(memoryview(self._macs.cookie_for(message, packed, now)), 0, address)
            return False
        if not self._limit.allow(packed[:16], now):
            self._dropped["handshake: too many of one address"] += 1
            return False
        return True

    def spent(self, seconds: float) -> None:
        """What a handshake that has passed took."""
        self._left_s -= seconds

    def behind(self) -> None:
        """They wait for too long: no more for nothing in this slot."""
        self._begin()
        self._left_s = 0.0

    def _begin(self) -> None:
        slot = int(self._loop.now / SLOT_S)
        if slot != self._slot:
            self._slot, self._left_s = slot, FREE_S
