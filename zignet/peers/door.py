"""Reads what is not data, as far as there is time for it: whoever knocks does not stop those who are in.

What is not data waits in a socket of its own (`Udp.side`), and gets BUDGET_S in each turn of the loop. More than that
fills this socket's buffer, and takes nothing from the sessions that stand. A buffer that has not been empty for a
while is a standing queue, as CoDel has it (RFC 8289 §3): then they are too many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any

from nat.loop import READ
from zignet.noise import MessageType

if TYPE_CHECKING:
    from nat.loop import Loop
    from zignet.peers.receive import Receiver
    from zignet.transport import Udp

__all__ = ["Door"]

BUDGET_S = 0.0005  # two handshakes; data gets up to 3 ms in a turn
STANDING_S = 0.1
RECEIVE = 65_536  # bytes of one receive call


class Door:
    """The reader of the side socket, where there is one."""

    def __init__(
        self,
        loop: Loop,
        transport: Udp,
        receiver: Receiver,
        knock: Callable[[memoryview, Any], None],  # called with a datagram that is not data, and its sender
        behind: Callable[[], None],  # called while they are too many
        dropped: Counter[str],
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._receiver = receiver
        self._knock = knock
        self._behind = behind
        self._dropped = dropped
        self._waits_since: float | None = None  # the end of the first turn that left something
        self._last = 0.0  # the end of the last one
        self._buffer = memoryview(bytearray(RECEIVE))
        # What is left of a train: at, total, size of each, sender, ECN field
        self._train: tuple[int, int, int, Any, int] | None = None

    def open(self) -> None:
        """Hear whoever knocks from now on."""
        if self._transport.side is not None:
            self._loop.watch(self._transport.side.fileno(), self, READ)

    def close(self) -> None:
        """And no more."""
        self._train = None
        if self._transport.side is not None:
            self._loop.forget(self._transport.side.fileno())

    def on_event(self, mask: int) -> None:
        """Something waits, or is left of the turn before."""
        end = perf_counter() + BUDGET_S
        while perf_counter() < end:
            train = self._train
            if train is None:
                got = self._transport.receive_beside(self._buffer)
                if got is None:
                    self._waits_since = None
                    return
                total, size, address, ecn = got
                train = (0, total, size or total, address, ecn)
            self._one(*train)
        last, self._last = self._last, end
        if self._waits_since is None or end - last > STANDING_S:  # it may have been empty in between
            self._waits_since = end
        elif end - self._waits_since > STANDING_S:
            self._behind()
        if self._train is not None:
            self._loop.soon(self._go_on)

    def abort(self) -> None:
        """A fault in this code, with one datagram: it, and what was left of its train, are lost."""
        self._dropped["internal error"] += 1
        self._train = None

    def _go_on(self) -> None:
        if self._train is not None:
            self.on_event(READ)

    def _one(self, at: int, total: int, size: int, address: Any, ecn: int) -> None:
        """The datagram at `at`; or, if it is data, all from there on: that is the receiver's business."""
        end = min(at + size, total)
        self._train = (end, total, size, address, ecn) if end < total else None
        if self._buffer[at] == MessageType.DATA:
            self._train = None
            self._transport.put_back(bytes(self._buffer[at:total]), size, address, ecn)
            self._receiver.on_event(READ)
        else:
            self._knock(self._buffer[at:end], address)
