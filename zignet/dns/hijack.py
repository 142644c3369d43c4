"""`dns.mode: hijack`: this node's own server answers the flows to port 53 that enter the TUN, whomever they are for.

What the application asked is what the answer comes from. The node's own queries to its upstreams carry the mark of its
sockets, and so never enter the TUN; peers that exit here have their flows chosen elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from nat.exit import Chooser, Dial, Route, Target, UdpDirect

__all__ = ["PORT", "RULE", "HijackChooser", "OwnServer"]

PORT = 53
RULE = "dns.mode: hijack"
TCP_UDP = (6, 17)


@dataclass(frozen=True, slots=True, eq=False)
class OwnServer:
    """The exit that is this node's name server. Before there is a flow, it listens at port 53 of some address."""

    kind: ClassVar[str] = "dns"
    where: ClassVar[str] = ""

    addresses: list[bytes]
    name: str = "dns"

    def tcp(self, target: Target) -> Dial:
        """Connect to it."""
        return Dial(self._address(target), PORT)

    def udp(self) -> UdpDirect:
        """Datagrams go to it, and its answers come from where they were sent."""
        return UdpDirect(stand_in=self._address)

    def _address(self, target: Target) -> bytes:
        """Of the target's family if there is one."""
        size = len(target.address)
        return next((address for address in self.addresses if len(address) == size), self.addresses[0])


class HijackChooser:
    """In front of the others (`nat.exit.Chooser`)."""

    def __init__(self, others: Chooser, server: OwnServer, is_on: Callable[[], bool]) -> None:
        self._others = others
        self._route = Route(server, RULE)
        self._is_on = is_on

    def choose(
        self, protocol: int, source: bytes, source_port: int, target: bytes, port: int, name: str | None
    ) -> Route | None:
        """See `Chooser`. No rule has a say about port 53, and no fake address."""
        if port == PORT and protocol in TCP_UDP and self._is_on():
            return self._route
        return self._others.choose(protocol, source, source_port, target, port, name)
