"""Whom we know, and whom we talk to.

A `Peer` is a key and its local addresses: there may be a hundred thousand, so it is small, and idle. A `Link` is what
it takes to talk to one: sessions, a path, what the packet path needs at hand. It comes with the first packet either
way, and goes when all is over.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from nat.checksum import fold, sum16
from zignet.identity import PublicKey

if TYPE_CHECKING:
    from nat.loop import Timer
    from zignet.config import PeerConfig
    from zignet.peers.guest import Guest
    from zignet.peers.hub import Hub
    from zignet.peers.path import Paths
    from zignet.peers.services import Services
    from zignet.peers.session import Session
    from zignet.peers.tunnel import Tunnel
    from zignet.wire import Fragments, Offer

__all__ = ["Link", "Peer"]

MOST_WAITING = 64  # packets for a session that is not there yet (protocol §9)
MOST_WAITING_BYTES = 256 << 10


class Peer:
    """Somebody with a key, and with addresses of our choosing. `settings` is None for one that came by itself."""

    __slots__ = ("address4", "address6", "key", "link", "settings")

    def __init__(self, key: PublicKey, settings: PeerConfig | None, address4: bytes, address6: bytes) -> None:
        self.key = key
        self.settings = settings
        self.address4 = address4  # b"" for a stranger, until its session is valid
        self.address6 = address6
        self.link: Link | None = None

    @property
    def name(self) -> str:
        """The configuration's name, or the key's."""
        return self.settings.name if self.settings is not None else self.key.name

    def __repr__(self) -> str:
        return f"<Peer {self.name}>"


class Link:
    """The conversation with one peer. The packet path reads its plain attributes, once a batch."""

    __slots__ = (
        "address",
        "asked_at",
        "forwarded",
        "fragments",
        "guest",
        "hub",
        "in4",
        "in6",
        "number",
        "offers",
        "paths",
        "peer",
        "pings",
        "room",
        "rtt_s",
        "rx_bytes",
        "services",
        "timer",
        "told",
        "tunnel",
        "tx_bytes",
        "unsent",
        "waiting",
        "waiting_bytes",
        "way4",
        "way6",
    )

    def __init__(self, hub: Hub, peer: Peer, tunnel: Tunnel, paths: Paths) -> None:
        self.hub = hub
        self.peer = peer
        self.tunnel = tunnel
        self.paths = paths
        self.address: Any = None  # of the path in use
        self.way4 = self.way6 = b""
        self.room = 0  # bytes of a frame that the path carries
        self.tx_bytes = self.rx_bytes = 0  # of datagrams
        self.waiting: deque[bytes] | None = None  # packets as they were read from the TUN
        self.waiting_bytes = 0
        self.timer: Timer | None = None
        self.fragments: Fragments | None = None
        self.unsent: tuple[bytes, int] | None = None  # an initiation, until its endpoint's name is resolved
        self.guest: Guest | None = None  # the peer as one whose connections are dialled here
        self.offers: tuple[Offer, ...] = ()  # what it offers to us
        self.told: tuple[Offer, ...] = ()  # what it was told that we offer to it
        self.services: Services | None = None  # what it may reach on this host; None: everything
        self.forwarded: bool | None = None  # whether its whole packets are; None: to be found out
        self.number = 0  # of the last frame that was sent in fragments
        self.pings: dict[bytes, float] | None = None  # token -> when it was sent
        self.rtt_s: float | None = None  # of the last ping, or of the handshake
        self.asked_at = 0.0  # when the last initiation left
        self.in4 = self.in6 = 0  # sums of both ends' addresses
        tunnel.owner = self

    def between(self, own4: bytes, own6: bytes) -> None:
        """Take the addresses of both ends: for the headers that are written, and the sums of the pseudo-headers."""
        self.way4 = self.peer.address4 + own4
        self.way6 = self.peer.address6 + own6
        self.in4 = fold(sum16(self.way4, 0, len(self.way4), 0))
        self.in6 = fold(sum16(self.way6, 0, len(self.way6), 0))
        if self.guest is not None:
            self.guest.between()

    @property
    def is_lost(self) -> bool:
        """Whether nobody knows where to send even an initiation, nor is about to find out."""
        paths = self.paths
        return not (paths.address or paths.endpoints or self.unsent or self.tunnel.next)

    def __call__(self) -> None:
        """Its deadline has come. A link is its own callback, for a function would cost 150 bytes more."""
        self.hub.due(self)

    # --- for the packet path

    def ready(self, now: float) -> Session | None:
        """The session to seal with, or None: the packet must wait."""
        session = self.tunnel.sending
        if session is None or now >= session.reject_at or self.address is None:
            return None
        return session

    def sent(self, now: float, size: int, is_data: bool) -> None:
        """Datagrams of `size` bytes together were sent."""
        self.tx_bytes += size
        if self.tunnel.sent(now, is_data):
            self.hub.arm(self)

    def received(self, now: float, size: int, is_data: bool, session: Session) -> None:
        """Authentic datagrams of `size` bytes together came."""
        self.rx_bytes += size
        if self.tunnel.heard(session, now, is_data):
            self.hub.arm(self)

    # --- what waits for a session

    def wait(self, packet: bytes) -> bool:
        """Keep a packet; the oldest make room. False if one was lost."""
        if self.waiting is None:
            self.waiting = deque()
        self.waiting.append(packet)
        self.waiting_bytes += len(packet)
        kept = True
        while len(self.waiting) > MOST_WAITING or self.waiting_bytes > MOST_WAITING_BYTES:
            self.waiting_bytes -= len(self.waiting.popleft())
            kept = False
        return kept

    def taken(self) -> deque[bytes]:
        """What waits, oldest first; nothing does from now on."""
        waiting = self.waiting or deque()
        self.waiting = None
        self.waiting_bytes = 0
        return waiting
