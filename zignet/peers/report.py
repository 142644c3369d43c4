"""What the node tells people about its peers, in the shapes of the control socket."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from zignet.control.messages import (
    Admission,
    Decided,
    Identity,
    IdentityStatus,
    Offered,
    PeerCounts,
    Ping,
    Reach,
)
from zignet.control.messages import Peer as Row
from zignet.exits import PeerExit
from zignet.identity import PublicKey, address6
from zignet.noise import Suite
from zignet.peers.guest import Guest
from zignet.wire import Protocol

if TYPE_CHECKING:
    from zignet.peers.hub import Hub
    from zignet.peers.peer import Link, Peer

__all__ = ["Shares", "admission", "counts", "identity", "ping", "policy_check", "row", "rows", "whose"]

CIPHERS = {Suite.CHACHA: "ChaCha20-Poly1305", Suite.AES: "AES-256-GCM"}
PING_S = 5.0  # patience with one that is connected
DECIDE_S = 30.0  # and with the policies
CONNECT_S = 8.0  # and with a handshake before


def identity(hub: Hub) -> IdentityStatus:
    """Who this node is."""
    local = hub.local
    return IdentityStatus(
        key=hub.key.name,
        address=str(ip_address(local.address4)),
        address6=str(ip_address(local.address6)),
        listen=hub.transport.local,
        cipher=CIPHERS[Suite.AES if hub.aes else Suite.CHACHA],
    )


def counts(hub: Hub) -> PeerCounts:
    """How many, and what was lost."""
    dropped = dict(hub.dropped)
    for more in (hub.sender.dropped, hub.receiver.dropped, hub.transport.dropped):
        for reason, count in more.items():
            dropped[reason] = dropped.get(reason, 0) + count
    links = hub.links()
    return PeerCounts(
        known=len(hub.table),
        connected=sum(link.tunnel.before_send(hub.loop.now) for link in links),
        pending=hub.pending,
        handshakes=hub.handshakes,
        under_load=hub.gate.under_load,
        dropped=dropped,
    )


def rows(
    hub: Hub, every: bool, connected: bool = False, offset: int = 0, limit: int | None = None
) -> Iterator[Row]:
    """The peers, connected or configured; with `every` also those that had an address before, with `connected` only
    those with a session. `offset` and `limit` choose some of them."""
    stop = None if limit is None else offset + limit
    shares = Shares(hub)
    if connected:
        now = hub.loop.now
        live = [link.peer for link in hub.links() if link.tunnel.before_send(now)]
        yield from (row(hub, peer, shares) for peer in live[offset:stop])
        return
    peers = list(hub.table)
    for peer in peers[offset:stop]:
        yield row(hub, peer, shares)
    if every and (stop is None or stop > len(peers)):
        known = {peer.key.x for peer in peers} | hub.table.by_key.keys()
        rest = [one for one in hub.store.everyone() if one[0] not in known]
        start, end = max(0, offset - len(peers)), None if stop is None else stop - len(peers)
        yield from (absent(hub, *one) for one in rest[start:end])


def whose(hub: Hub, text: str) -> Identity | None:
    """Whose key (in any form) or whose address on this host that is; None: nobody's address.

    A key that nobody here has ever seen has an IPv6 address all the same. Raises `BadKey`.
    """
    try:
        address = ip_address(text).packed
    except ValueError:
        address = b""
    if hub.is_own(text):
        local = hub.local
        own = known(hub.key.name, IPv4Address(local.address4), IPv6Address(local.address6))
        own["own"] = own["online"] = True
        return own
    key = None if address else PublicKey.from_text(text)
    peer = hub.table.by_address.get(address) if key is None else hub.table.by_key.get(key.x)
    if peer is None:
        return remembered(hub, key, address)
    shown = row(hub, peer)
    return Identity(
        key=shown["key"],
        name=shown["name"],
        address=str(IPv4Address(peer.address4)) if peer.address4 else None,
        address6=shown["address6"],
        own=False,
        configured=shown["configured"],
        online=shown["state"] == "connected",
        last_seen=shown["last_seen"],
    )


def remembered(hub: Hub, key: PublicKey | None, address: bytes) -> Identity | None:
    """One that is not there, as the store remembers it: by its key, or by its IPv4 address."""
    found = hub.store.find(
        None if key is None else key.x, int.from_bytes(address) if len(address) == 4 else None
    )
    if found is not None:
        x, name, number, last_seen = found
        identity = known(name, IPv4Address(number), address6(hub.local.range6, x))
        identity["last_seen"] = last_seen or None
        return identity
    return None if key is None else known(key.name, None, address6(hub.local.range6, key.x))


def known(key: str, address4: IPv4Address | None, own6: IPv6Address) -> Identity:
    """A key that nobody has set up, and nobody talks to."""
    return Identity(
        key=key,
        name="",
        address=None if address4 is None else str(address4),
        address6=str(own6),
        own=False,
        configured=False,
        online=False,
        last_seen=None,
    )


class Shares:
    """Open flows by peer (the X25519 form of its key): ours that it dials, and its own that are dialled here."""

    def __init__(self, hub: Hub) -> None:
        self.ours = Counter(flow.destination.peer.key.x for flow in hub.carried())
        self.theirs: Counter[bytes] = Counter()
        for flow in hub.engine.flows():
            exit_ = flow.route.exit if flow.route is not None else None
            if isinstance(flow.source, Guest):
                self.theirs[flow.source.link.peer.key.x] += 1
            elif isinstance(exit_, PeerExit):
                self.ours[exit_.key.x] += 1


def idle(key: str, address4: IPv4Address | IPv6Address, address6: IPv4Address | IPv6Address) -> Row:
    """A peer that nobody has set up, and nobody talks to."""
    return Row(
        name="",
        key=key,
        address=str(address4),
        address6=str(address6),
        configured=False,
        contact=False,
        services=[],
        state="idle",
        path="",
        path_mtu=0,
        cipher="",
        handshake_age_s=None,
        idle_s=None,
        received=0,
        sent=0,
        rtt_s=None,
        loss=None,
        last_seen=None,
        exit_flows=0,
        guest_flows=0,
        admitted=None,
    )


def row(hub: Hub, peer: Peer, shares: Shares | None = None) -> Row:
    """One peer; with `shares`, its flows too."""
    link, now = peer.link, hub.loop.now
    base = idle(peer.key.name, ip_address(peer.address4), ip_address(peer.address6))
    if peer.settings is not None:
        base["name"] = peer.settings.name
        base["contact"] = peer.settings.contact
        base["configured"] = not peer.settings.contact
    if shares is not None:
        base["exit_flows"], base["guest_flows"] = shares.ours[peer.key.x], shares.theirs[peer.key.x]
    decision = hub.admission.admit(peer.key, now)
    base["admitted"] = decision.reason if decision.allowed else None
    if link is None:
        return base
    tunnel = link.tunnel
    session = tunnel.sending
    base["state"] = "connected" if tunnel.before_send(now) else "connecting" if tunnel.is_trying else "idle"
    base["received"], base["sent"] = link.rx_bytes, link.tx_bytes
    if link.address is not None:
        base["path"] = hub.transport.text(link.address)
        base["path_mtu"] = link.paths.mtu
    if tunnel.renewed_at:
        base["handshake_age_s"] = round(now - tunnel.renewed_at, 3)
    if tunnel.received_at:
        base["idle_s"] = round(now - tunnel.received_at, 3)
        base["last_seen"] = round(time.time() - (now - tunnel.received_at), 3)
    base["rtt_s"] = link.rtt_s
    base["services"] = [
        Offered(name=offer.name, proto=Protocol(offer.protocol).name.lower(), port=offer.port)
        for offer in link.offers
    ]
    if session is not None:
        base["cipher"] = CIPHERS[session.suite]
        if session.opening is not None and session.opening.expected:
            base["loss"] = round(max(0.0, 1 - session.opening.received / session.opening.expected), 4)
    return base


def absent(hub: Hub, x: bytes, key: str, address: int, last_seen: int, endpoint: str | None) -> Row:
    """One that is not there, as the store remembers it."""
    base = idle(key, ip_address(address), address6(hub.local.range6, x))
    base["path"], base["last_seen"] = endpoint or "", last_seen or None
    return base


def admission(hub: Hub, text: str, proto: str | None = None, port: int | None = None) -> Admission:
    """What the configuration says of a key (in any form), where it needs to ask nobody. Raises `BadKey`."""
    key = PublicKey.from_text(text)
    judged = hub.asking.judged
    decision = hub.admission.admit(key, hub.loop.now) if judged is None else judged.lists.listed(key)
    service = None
    if proto is not None:
        allowed, reason = hub.reach(key, proto, port)
        service = Reach(proto=proto, port=port, allowed=allowed, reason=reason)
    if decision is None:
        return Admission(allowed=None, reason="", service=service)
    return Admission(allowed=decision.allowed, reason=decision.reason, service=service)


def policy_check(hub: Hub, text: str) -> Iterable[Decided | None]:
    """Whether a key (in any form) would be let in. None: not decided yet. Raises `BadKey`."""
    key = PublicKey.from_text(text)
    begun = hub.loop.now

    def looked_at() -> Iterator[Decided | None]:
        while (decision := hub.admission.admit(key, hub.loop.now)).pending:
            if hub.loop.now > begun + DECIDE_S:
                yield Decided(
                    key=key.name, allowed=None, reason=f"no answer of the policies in {DECIDE_S:.0f} s"
                )
                return
            hub.asking.ask(key)
            yield None
        yield Decided(key=key.name, allowed=decision.allowed, reason=decision.reason)

    return looked_at()


def ping(hub: Hub, peer: Peer) -> Iterable[Ping | None]:
    """Connect if need be, ask, and wait. None: not yet."""
    link: Link = hub.wake(peer)
    begun = hub.loop.now
    handshake = link.ready(begun) is None
    hub.connect(link)

    def result(rtt_s: float | None, error: str | None) -> Ping:
        path = hub.transport.text(link.address) if link.address is not None else ""
        return Ping(
            peer=peer.name, key=peer.key.name, path=path, rtt_s=rtt_s, handshake=handshake, error=error
        )

    while link.ready(hub.loop.now) is None:
        if peer.link is not link or hub.loop.now > begun + CONNECT_S:
            yield result(None, "no answer to the handshake")
            return
        if link.is_lost:
            endpoint = peer.settings.endpoint if peer.settings is not None else None
            known = f"its endpoint {endpoint} can't be found" if endpoint else "no endpoint is configured"
            yield result(None, f"{known}, and it has not come by itself")
            return
        yield None
    token = hub.ping(link)
    asked = hub.loop.now
    while token is not None and link.pings is not None and token in link.pings:
        if hub.loop.now > asked + PING_S:
            link.pings.pop(token, None)
            yield result(None, "timed out")
            return
        yield None
    yield result(link.rtt_s, None)
