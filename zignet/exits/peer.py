"""The exit that is a peer: it resolves the name and dials; this host only says where to (protocol §6, exit flows).

A flow whose SYN had the name never comes here: its own packets go to the peer (`zignet.peers.destinations`). One whose
name had to be sniffed, or whose address is a real one, connects on from here, to a fake address that stands for
(name, this exit), and so takes the same path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, ClassVar

from nat.exit import Dial, Reason, Refusal, Target, UdpDirect
from zignet.exits.names import is_sendable

if TYPE_CHECKING:
    from zignet.dns.fakes import Fakes
    from zignet.identity import PublicKey

__all__ = ["PeerExit", "Stand", "lead", "standing"]

Stand = Callable[[str, str, int], bytes | None]  # (name or address, exit, 4 or 16) -> a fake address for it


@dataclass(slots=True, unsafe_hash=True)
class PeerExit:
    """Everything leaves by one peer."""

    kind: ClassVar[str] = "peer"

    name: str
    key: PublicKey
    stand: Stand | None = field(default=None, compare=False)  # None: names are not led to peers here

    @property
    def where(self) -> str:
        """For people: the beginning of its key."""
        return self.key.name[:8]

    def tcp(self, target: Target) -> Dial | Refusal:
        """Connect to the fake address that stands for the target by this exit."""
        address = self._address(target)
        return address if isinstance(address, Refusal) else Dial(address, target.port)

    def udp(self) -> UdpDirect | Refusal:
        """Datagrams go to the same address."""
        return UdpDirect(stand_in=self._address)

    def _address(self, target: Target) -> bytes | Refusal:
        if self.stand is None:
            return Refusal(Reason.FAILED, "fake addresses are not set up on this host")
        name = target.name.lower() if target.name else ""
        if target.only_name and not is_sendable(name):
            return Refusal(Reason.HOST_UNREACHABLE, "not a name that a peer can resolve")
        meaning = name if is_sendable(name) else str(ip_address(target.address))
        found = self.stand(meaning, self.name, len(target.address))
        if found is None:
            return Refusal(Reason.FAILED, "no fake address is left")
        return found


def lead(exits: Iterable[object], fakes: Fakes) -> None:
    """Have those of the exits that are peers use these fake addresses; after each making of exits."""
    stand = standing(fakes)
    for exit_ in exits:
        if isinstance(exit_, PeerExit):
            exit_.stand = stand


def standing(fakes: Fakes) -> Stand:
    """The addresses of these for `PeerExit.stand`."""

    def stand(meaning: str, exit_name: str, size: int) -> bytes | None:
        number = fakes.number_of(meaning, exit_name)
        if number is None:
            return None
        return fakes.address4(number) if size == 4 else fakes.address6(number)

    return stand
