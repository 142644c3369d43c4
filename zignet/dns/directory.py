"""Who has which address here, for the zone: this node, configured peers, whoever is connected, and any key."""

from __future__ import annotations

from ipaddress import IPv6Network
from typing import TYPE_CHECKING

from zignet.dns.zone import ADMIN, APEX
from zignet.identity import BadKey, PublicKey
from zignet.identity.address import address6
from zignet.identity.names import NAME_LENGTH

if TYPE_CHECKING:
    from zignet.peers import Hub
    from zignet.peers.peer import Peer

__all__ = ["NodeDirectory"]

OWN = "admin"


class NodeDirectory:
    """See `zignet.dns.zone.Directory`. `hub` is None for a node without peers, which knows only itself."""

    def __init__(self, own: list[bytes], range6: IPv6Network, hub: Hub | None) -> None:
        """`own`: this node's addresses, 4 and 16 bytes."""
        self._own = own
        self._range6 = range6
        self._hub = hub
        self._by_name: dict[str, Peer] | None = None

    def peers_changed(self) -> None:
        """The configuration was read again."""
        self._by_name = None

    def addresses(self, label: str) -> list[bytes] | None:
        """See `Directory`. A name of the configuration comes first; it can't have a key's length and checksum."""
        if label == OWN:
            return self._own
        if self._hub is None:
            return None
        peer = self._named(label)
        if peer is None and len(label) == NAME_LENGTH:
            try:
                key = PublicKey.from_text(label)
            except BadKey:
                return None
            if key == self._hub.key:
                return self._own
            peer = self._hub.table.by_key.get(key.x)
            if peer is None:  # not known yet: its IPv6 address is the same everywhere
                return [address6(self._range6, key.x).packed]
        if peer is None:
            return None
        return [peer.address4, peer.address6] if peer.address4 else [peer.address6]

    def name_at(self, address: bytes) -> str | None:
        """See `Directory`."""
        if address in self._own:
            return ADMIN
        peer = self._hub.table.by_address.get(address) if self._hub is not None else None
        return None if peer is None else f"{peer.name.lower()}.{APEX}"

    def _named(self, label: str) -> Peer | None:
        """The configured peer of that name; the index is made when the first is asked for."""
        if self._by_name is None:
            assert self._hub is not None
            self._by_name = {
                peer.settings.name.lower(): peer for peer in self._hub.table if peer.settings is not None
            }
        peer = self._by_name.get(label)
        return peer if peer is not None and peer.settings is not None else None
