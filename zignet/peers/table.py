"""Who is known: peers by key and by local address, sessions by index. Each look-up of the packet path is one hash."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from zignet.identity import PublicKey
from zignet.peers.peer import Peer

if TYPE_CHECKING:
    from zignet.config import PeerConfig
    from zignet.peers.tunnel import Tunnel

__all__ = ["Indices", "Table"]


class Table:
    """The peers. `by_address` has both of each one's addresses, as bytes, and is what the packet path looks into."""

    def __init__(self) -> None:
        self.by_key: dict[bytes, Peer] = {}  # X25519 form
        self.by_address: dict[bytes, Peer] = {}

    def __len__(self) -> int:
        return len(self.by_key)

    def __iter__(self) -> Iterator[Peer]:
        return iter(list(self.by_key.values()))

    def __contains__(self, key: object) -> bool:
        """Whether the configuration names this key."""
        settings = self._settings(key)
        return settings is not None and not settings.contact

    def knows(self, key: PublicKey) -> bool:
        """Whether it is a contact's."""
        settings = self._settings(key)
        return settings is not None and settings.contact

    def _settings(self, key: object) -> PeerConfig | None:
        peer = self.by_key.get(key.x) if isinstance(key, PublicKey) else None
        return None if peer is None else peer.settings

    def add(self, peer: Peer) -> None:
        """Take a peer, whose addresses are set."""
        self.by_key[peer.key.x] = peer
        if peer.address4:
            self.by_address[peer.address4] = peer
        self.by_address[peer.address6] = peer

    def remove(self, peer: Peer) -> None:
        """Forget a peer."""
        if self.by_key.get(peer.key.x) is peer:
            del self.by_key[peer.key.x]
        for address in (peer.address4, peer.address6):
            if self.by_address.get(address) is peer:
                del self.by_address[address]

    def find(self, text: str) -> Peer | None:
        """The peer that a person means: a name, a key in any form, a local address. None: nobody known.

        Raises `BadKey` for a text that looks like a key and is none.
        """
        wanted = text.lower()
        for peer in self.by_key.values():  # a person asks, now and then: a hash would cost 150 bytes a peer
            if peer.settings is not None and peer.settings.name.lower() == wanted:
                return peer
        try:
            return self.by_address.get(ip_address(text).packed)
        except ValueError:
            pass
        if len(text) < 32:  # shorter than any form of a key
            return None
        return self.by_key.get(PublicKey.from_text(text).x)


class Indices:
    """Which handshake, or which session, an index of ours stands for: 32 bits, never 0 (protocol §2).

    22 are random, and `mark` adds the others, by which the kernel knows that it is one of ours.
    """

    __slots__ = ("_mark", "_random", "openings", "tunnels")

    def __init__(
        self, random: Callable[[int], bytes], mark: Callable[[int], int] = lambda index: index
    ) -> None:
        self._random = random
        self._mark = mark
        self.tunnels: dict[int, Tunnel] = {}
        self.openings: dict[int, Any] = {}  # of those that are sessions: the packet path looks here

    def new(self, owner: Tunnel) -> int:
        """An index that nobody has."""
        while (index := self._mark(int.from_bytes(self._random(4), "little"))) == 0 or index in self.tunnels:
            pass
        self.tunnels[index] = owner
        return index

    def free(self, index: int) -> None:
        """It stands for nothing from now on. Harmless when repeated."""
        self.tunnels.pop(index, None)
        self.openings.pop(index, None)
