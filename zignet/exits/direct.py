"""The exit that is this host itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nat.exit import Dial, Target, UdpDirect

__all__ = ["Direct"]


@dataclass(frozen=True, slots=True)
class Direct:
    """Flows leave from this host, by its own routes or tied to one interface.

    A target's name is not resolved again: the address that the application chose is dialled.
    """

    kind: ClassVar[str] = "direct"

    name: str = "direct"
    device: str = ""  # an interface's name; "" leaves the choice to the routing table

    @property
    def where(self) -> str:
        """For people: the interface, or ""."""
        return self.device

    def tcp(self, target: Target) -> Dial:
        """Connect to the target's address."""
        return Dial(target.address, target.port, None, self.device)

    def udp(self) -> UdpDirect:
        """Datagrams leave from sockets of our own."""
        return UdpDirect(self.device)
