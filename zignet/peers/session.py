"""A session: what one handshake has made, from its birth until its keys are erased."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from zignet.noise import Suite
    from zignet.peers.tunnel import Tunnel

__all__ = ["Halves", "Indices", "Session"]

# Makes the two halves that seal and open: (suite, key to send, key to receive, local index, remote index). The keys
# are overwritten when it has returned. The first half has `counter`, the messages that were sent; both have `erase`.
Halves = Callable[["Suite", bytearray, bytearray, int, int], tuple[Any, Any]]

_NEVER = float("inf")


class Session:
    """Two keys and what they are for. Times are monotonic seconds; the tunnel sets them (protocol.md §5)."""

    __slots__ = (
        "born",
        "device",
        "fresh_until",
        "initiator",
        "local_index",
        "opening",
        "origin",
        "reject_at",
        "remote_index",
        "renew_at",
        "sealing",
        "suite",
        "tunnel",
    )

    def __init__(
        self,
        tunnel: Tunnel,
        halves: tuple[Any, Any],
        indices: tuple[int, int],  # ours, theirs
        suite: Suite,
        device: bytes,
        origin: Any,
        initiator: bool,
        born: float,
    ) -> None:
        self.tunnel = tunnel
        self.sealing, self.opening = halves
        self.local_index, self.remote_index = indices
        self.suite = suite
        self.device = device  # the other side's
        self.origin = origin  # the address that the other side's handshake message came from
        self.initiator = initiator  # whether we were
        self.born = born
        self.fresh_until = _NEVER  # from here on whoever sends on it asks for a new one
        self.renew_at = _NEVER  # from here on whoever hears something on it does
        self.reject_at = _NEVER  # from here on it is of no use

    def erase(self) -> None:
        """Drop the keys. Nothing is sealed or opened after this."""
        self.sealing.erase()
        if self.opening is not None:
            self.opening.erase()
            self.opening = None  # it may know its session: no cycle shall outlive this

    def __repr__(self) -> str:
        side = "initiator" if self.initiator else "responder"
        return f"<Session {self.local_index:08x} {side} {self.suite.name}>"


class Indices(Protocol):
    """Which session, or which handshake, an index of ours stands for (protocol.md §2)."""

    def new(self, owner: Any) -> int:
        """An index that nobody has: 32 random bits, not 0."""
        ...

    def free(self, index: int) -> None:
        """It stands for nothing from now on."""
        ...
