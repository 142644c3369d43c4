"""The exit that is this host itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nat.exit import Dial, DialName, Target, UdpDirect

__all__ = ["Direct"]


@dataclass(frozen=True, slots=True)
class Direct:
    """Flows leave from this host, by its own routes or tied to one interface.

    A sniffed name is not resolved again: the address that the application chose is dialled. Where a flow has
    nothing but a name (a fake IP), this host's resolver is asked.
    """

    kind: ClassVar[str] = "direct"

    name: str = "direct"
    device: str = ""  # an interface's name; "" leaves the choice to the routing table

    @property
    def where(self) -> str:
        """For people: the interface, or ""."""
        return self.device

    def tcp(self, target: Target) -> Dial | DialName:
        """Connect to the target's address, or to one that its name leads to."""
        if target.only_name and target.name is not None:
            return DialName(target.name, target.port, self.device)
        return Dial(target.address, target.port, None, self.device)

    def udp(self) -> UdpDirect:
        """Datagrams leave from sockets of our own."""
        return UdpDirect(self.device)
