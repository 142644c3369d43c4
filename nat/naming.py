"""A UDP flow to a name: its datagrams wait until the name is resolved, once, and then it has a mapping like others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nat.exit import Lookup, Refusal, Resolver, UdpDirect
from nat.race import permitted
from nat.sockets import Underlay, family_of, sockaddr

if TYPE_CHECKING:
    from nat.mapping import Mappings
    from nat.udp import UdpFlow

__all__ = ["Naming", "has_way"]

HELD_DATAGRAMS = 32  # of one flow
HELD_BYTES = 65_536


def has_way(underlay: Underlay, address: bytes, device: str) -> bool:
    """Whether this host has a route there. Connecting a UDP socket sends nothing."""
    try:
        sock = underlay.udp(family_of(address), device)
    except OSError:
        return False
    try:
        sock.connect(sockaddr(address, 9))
    except OSError:
        return False
    finally:
        sock.close()
    return True


class Naming:
    """Stands in for the mapping of one flow."""

    __slots__ = ("_flow", "_held", "_lookup", "_over", "_owner", "_plan", "_size", "refusal")

    def __init__(self, owner: Mappings, flow: UdpFlow, plan: UdpDirect) -> None:
        self._owner = owner
        self._flow = flow
        self._plan = plan
        self._held: list[tuple[bytes, int]] = []  # payload, segment size
        self._size = 0
        self._lookup: Lookup | None = None
        self._over = False
        self.refusal: Refusal | None = None

    def start(self, resolver: Resolver) -> None:
        """Ask. `refusal` is set where the answer was there at once, and is no."""
        assert self._flow.route is not None
        lookup = resolver.resolve(self._flow.route.name, self._resolved)
        if not self._over:
            self._lookup = lookup

    def send(self, flow: UdpFlow, payload: memoryview, segment: int) -> None:
        """Hold a datagram, or several."""
        count = -(-len(payload) // segment) if segment else 1
        if len(self._held) >= HELD_DATAGRAMS or self._size + len(payload) > HELD_BYTES:
            self._owner.dropped["udp: the name is not resolved yet"] += count
            return
        self._held.append((bytes(payload), segment))
        self._size += len(payload)

    def leave(self, flow: UdpFlow) -> None:
        """The flow has ended."""
        self._over = True
        self._held.clear()
        if self._lookup is not None:
            self._lookup.cancel()
            self._lookup = None

    def _resolved(self, answer: Sequence[bytes] | Refusal) -> None:
        self._lookup = None
        self._over = True
        flow, owner = self._flow, self._owner
        assert flow.route is not None
        addresses = permitted(flow.route.name, answer, self._plan.may_dial)
        refusal = addresses if isinstance(addresses, Refusal) else owner.named(flow, self._plan, addresses)
        held, self._held = self._held, []
        if refusal is None:
            for payload, segment in held:
                if flow.mapping is not None:
                    flow.mapping.send(flow, memoryview(payload), segment)
        elif held:  # else: nothing was sent yet, and whoever asked for a mapping refuses
            flow.error = refusal.message
            owner.refuse(flow, held[0][0], refusal.reason)
            owner.udp.remove(flow)
        else:
            self.refusal = refusal
