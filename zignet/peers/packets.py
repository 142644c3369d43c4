"""Whole packets by an exit (protocol §6): which of them a rule sends to whom, and which an exit takes and brings back.

    the application's side   way(): rules ─► the peer            near(): may this answer come from that peer?
    the exit's side          stand_in(): may this peer send there, and who is it to our kernel?   is_answer()

The packet path asks once for each packet that it writes, a super-packet included, so answers are kept at hand. What
is forwarded, and under which address it leaves this host, is the kernel's business (`zignet.system.forwarding`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nat.header import Protocol as Ip

if TYPE_CHECKING:
    from zignet.peers.peer import Link, Peer
    from zignet.peers.send import Sender
    from zignet.routing import Rules

__all__ = ["Packets", "Terms"]

KEPT = 4_096  # answers of one kind at hand

Networks = tuple[tuple[int, int], ...]  # (mask, address)


@dataclass(frozen=True, slots=True)
class Terms:
    """What this host sends on for peers."""

    may: Callable[[Link], bool]  # whether this peer may have it done
    may_send: Callable[[bytes], bool]  # whether to this address of 4 or 16 bytes
    ports: frozenset[int] = field(default_factory=frozenset)  # of TCP and UDP; empty: all
    tcp: bool = True
    udp: bool = True

    def allows(self, target: bytes, protocol: int, port: int) -> bool:
        """Whether a packet may go there. Addresses that hold IPv4 ones (mapped, compatible) are never on a wire."""
        if len(target) == 16 and not any(target[:10]):
            return False
        if protocol in (Ip.TCP, Ip.UDP):
            if not (self.tcp if protocol == Ip.TCP else self.udp) or (self.ports and port not in self.ports):
                return False
        elif self.ports and protocol not in (Ip.ICMP, Ip.ICMPV6):
            return False
        return self.may_send(target)


class Packets:
    """Both sides of one node."""

    def __init__(
        self, sender: Sender, gateway: Any, own: tuple[bytes, bytes], find: Callable[[bytes], Peer | None]
    ) -> None:
        self._sender = sender
        self._gateway = gateway
        self._own = {len(address): address for address in own}
        self._find = find  # by the X25519 form of a key
        self._rules: Rules | None = None
        self._networks: dict[
            bytes, dict[int, Networks]
        ] = {}  # X25519 form -> size of the address -> networks
        self._terms: Terms | None = None
        self._near: dict[tuple[bytes, bytes], bool] = {}
        self._allowed: dict[bytes, bool] = {}  # by target, protocol, port
        self._come: dict[bytes, bool] = {}
        self.mtu = 1500  # bytes of an IPv6 packet; what is larger came in fragments
        self.is_outside: Callable[[bytes], bool] = lambda address: False  # neither of ZigNet nor of this host
        self.is_own: Callable[[bytes], bool] = lambda address: False

    def forget(self) -> None:
        """This host's addresses have changed."""
        self._allowed.clear()
        self._come.clear()

    # --- the application's side

    def lead(self, rules: Rules, key_of: Callable[[str], bytes]) -> None:
        """From now on these rules say whose packets leave as they are. `key_of`: the X25519 form of a peer's key."""
        self._rules = rules
        self._networks = {}
        for prefix, name in rules.networks:
            bits = len(prefix.network) * 8
            mask = (1 << bits) - (1 << bits - prefix.length)
            by_size = self._networks.setdefault(key_of(name), {})
            size = len(prefix.network)
            by_size[size] = (*by_size.get(size, ()), (mask, int.from_bytes(prefix.network, "big") & mask))
        self._sender.ways.clear()
        self._near.clear()
        self._gateway.whole = self._sender.whole if self._networks else None

    def way(self, key: bytes) -> Peer | None:
        """The peer for packets of this target, protocol (1) and port (2), or None; the sender remembers it."""
        target, protocol, port = key[:-3], key[-3], int.from_bytes(key[-2:], "big")
        assert self._rules is not None  # `lead` was called, or the gateway would not ask
        route = self._rules.whole(protocol, self._own[len(target)], 0, target, port)
        peer = None if route is None else self._find(route.exit.key.x)  # type: ignore[attr-defined]
        ways = self._sender.ways
        if len(ways) >= KEPT:
            ways.clear()
        ways[key] = peer
        return peer

    def near(self, link: Link, far: bytes) -> bytes | None:
        """This host's address, if an answer from `far` may come by this peer: a rule sends it packets for there."""
        key = link.peer.key.x, far
        known = self._near.get(key)
        if known is None:
            number = int.from_bytes(far, "big")
            networks = self._networks.get(link.peer.key.x, {}).get(len(far), ())
            known = number != 0 and any(number & mask == address for mask, address in networks)
            if len(self._near) >= KEPT:
                self._near.clear()
            self._near[key] = known
        return self._own[len(far)] if known else None

    # --- the exit's side

    def offer(self, terms: Terms | None, links: Iterable[Link]) -> None:
        """From now on this is sent on; None: nothing is."""
        self._terms = terms
        self.forget()
        for link in links:
            link.forwarded = None

    def admits(self, link: Link) -> bool:
        """Whether this peer's whole packets are sent on."""
        if link.forwarded is None:
            terms = self._terms
            link.forwarded = terms is not None and bool(link.peer.address4) and terms.may(link)
        return link.forwarded

    def stand_in(self, link: Link, key: bytes) -> bytes | None:
        """The peer's address here, if it may send to this target, protocol (1) and port (2)."""
        if not self.admits(link) or self._terms is None:
            return None
        allowed = self._allowed.get(key)
        if allowed is None:
            allowed = self._terms.allows(key[:-3], key[-3], int.from_bytes(key[-2:], "big"))
            if len(self._allowed) >= KEPT:
                self._allowed.clear()
            self._allowed[key] = allowed
        if not allowed:
            return None
        return link.peer.address4 if len(key) == 7 else link.peer.address6

    def is_answer(self, peer: Peer, at: int, v6: bool) -> bool:
        """Whether a packet in the gateway's buffer, which the kernel has sent on to this peer, may go to it."""
        link = peer.link
        if link is None or not self.admits(link):
            return False
        raw = self._gateway.raw
        if self.may_come(bytes(raw[at + 8 : at + 24] if v6 else raw[at + 12 : at + 16])):
            return True
        # Our kernel's errors about such packets may have any address of this host.
        protocol = raw[at + 6] if v6 else raw[at + 9]
        return bool(protocol == (Ip.ICMPV6 if v6 else Ip.ICMP))

    def may_come(self, source: bytes) -> bool:
        """Whether an answer, or a router on the way, may have this address."""
        come = self._come.get(source)
        if come is None:
            come = self.is_outside(source)
            if len(self._come) >= KEPT:
                self._come.clear()
            self._come[source] = come
        return come
