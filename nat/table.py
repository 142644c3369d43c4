"""The 5-tuple table of TCP: who gets which alias, in which state a flow is, and who must go when it is full.

A flow's packets are found by two keys of one dictionary (`Gateway.rewrites`): what the application's packet
carries (addresses and ports), and what the listener's answer carries. Every new flow of a source port takes the
*next* alias address, round and round, so that a pair (alias, port) is not used again while the kernel keeps
it in TIME_WAIT.

Established flows are never looked at by a timer here, and never evicted: the relay that owns them has its own
idle time-out. So a SYN flood can only push out its own half-open flows.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from typing import Any

import cython

from nat import checksum
from nat.expiry import Expiry
from nat.flow import Flow, Source, State
from nat.gateway import Gateway, Rewrite

__all__ = ["AliasPool", "Table", "TcpFlow"]

TIME_WAIT_S = 60.0  # of Linux; not tunable there
CLOSING_S = 60.0  # of silence, while the kernel delivers what it holds
LINGER_S = 2.0  # for a retransmitted last FIN
HALF_OPEN_S = 130.0  # Linux gives up a SYN after 127 s (tcp_syn_retries = 6)
NEAR = 1 << 15  # aliases that one port cannot use up within TIME_WAIT; in a smaller block every pair rests
FIN, RST = 0x01, 0x04


class TcpFlow(Flow):
    """A TCP flow and its two rewrites."""

    __slots__ = ("alias", "back", "dial", "fins", "forth", "held", "isn", "key", "relay", "reverse")

    key: bytes
    reverse: bytes
    forth: Any  # the Rewrite application → listener
    back: Any  # the Rewrite listener → application
    relay: Any  # the Arrival, then the Relay, that owns it while ESTABLISHED
    dial: Any  # the Attempt under way, or the exit's socket that waits for the accept
    alias: int  # index in the pool
    isn: int  # initial sequence number of its SYN: tells a retransmission from a new flow
    held: bytes  # the SYN that waits for the exit
    fins: int  # bit 0: the application's FIN was seen; bit 1: the listener's

    def settle(self) -> None:
        """Break the cycles with the rewrites, so that nothing waits for the garbage collector."""
        super().settle()
        self.forth = self.back = self.relay = self.dial = None
        self.held = b""


class AliasPool:
    """The addresses that stand in for a source on the listener's side: `count` of them after `base`."""

    def __init__(self, network: bytes, prefix: int) -> None:
        self.prefix = network[:-2]  # all but the last 16 bits is the same for every alias
        self.low = int.from_bytes(network[-2:], "big")
        self.count = min(1 << (8 * len(network) - prefix), 1 << 16)
        # Neither the first (the network's own) nor the last (its broadcast address).
        self.usable = self.count - 2
        if self.usable < 1:
            raise ValueError("an alias block needs at least 4 addresses")
        self.next = array("H", bytes(2 << 16))  # per source port

    def address(self, index: int) -> bytes:
        """The alias with this index."""
        return self.prefix + (self.low + 1 + index).to_bytes(2, "big")

    def take(self, port: int) -> int:
        """The next index for a flow from `port`."""
        index = self.next[port]
        self.next[port] = index + 1 if index + 1 < self.usable else 0
        return index

    def soon_again(self, port: int, index: int) -> bool:
        """Would a busy port come to this alias before the kernel has forgotten the pair?"""
        ahead = (index - self.next[port]) % self.usable
        return ahead < NEAR


@cython.cclass
class Table:
    """All TCP flows."""

    gateway: Gateway | None
    rewrites: dict[bytes, Rewrite]
    listeners: dict[int, tuple[bytes, int]]
    pools: dict[int, AliasPool]
    half_open: Any = cython.declare(object, visibility="readonly")
    closing: Any
    closed: Any
    resting: Any
    limit = cython.declare(cython.Py_ssize_t, visibility="public")
    half_open_limit = cython.declare(cython.Py_ssize_t, visibility="public")
    count = cython.declare(cython.Py_ssize_t, visibility="readonly")
    evicted: Any = cython.declare(object, visibility="public")

    def __init__(
        self,
        gateway: Gateway,
        expiry: Callable[[float, Callable[[TcpFlow], None]], Expiry],
        pools: dict[int, AliasPool],
        limit: int = 65_536,
        half_open_limit: int = 8_192,
    ) -> None:
        self.gateway = gateway
        self.rewrites = gateway.rewrites
        self.listeners = {}  # address length → (address, port)
        self.pools = pools  # address length → AliasPool
        self.limit = limit
        self.half_open_limit = half_open_limit
        self.count = 0
        self.evicted = None  # told of a half-open flow that has to go
        self.half_open = expiry(HALF_OPEN_S, self._abandon)
        self.closing = expiry(CLOSING_S, self.remove)
        self.closed = expiry(LINGER_S, self._rest)
        self.resting = expiry(TIME_WAIT_S, self.remove)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[TcpFlow]:
        return iter([rewrite.flow for key, rewrite in self.rewrites.items() if rewrite.flow.key is key])

    def listen(self, address: bytes, port: int) -> None:
        """Flows of this address family go to this listener from now on."""
        self.listeners[len(address)] = (address, port)

    def get(self, key: bytes) -> TcpFlow | None:
        """The flow with this key, of either direction."""
        rewrite = self.rewrites.get(key)
        return None if rewrite is None else rewrite.flow

    def accepted(self, alias: bytes, port: int) -> TcpFlow | None:
        """The flow behind a connection that the listener accepted from (alias, port)."""
        address, own = self.listeners[len(alias)]
        return self.get(address + alias + own.to_bytes(2, "big") + port.to_bytes(2, "big"))

    # --- a flow's life

    def open(
        self,
        source: Source,
        key: bytes,
        source_address: bytes,
        source_port: int,
        target: bytes,
        target_port: int,
        isn: int,
        now: float,
    ) -> TcpFlow | None:
        """A SYN came: the new flow, HALF_OPEN, or None when there is no room for it."""
        size = len(source_address)
        if size not in self.listeners:
            return None
        if not self._room():
            return None
        listener, port = self.listeners[size]
        pool: AliasPool = self.pools[size]
        ports = source_port.to_bytes(2, "big") + port.to_bytes(2, "big")
        back_ports = ports[2:] + ports[:2]
        for _ in range(64):
            index = pool.take(source_port)
            alias = pool.address(index)
            reverse = listener + alias + back_ports
            if reverse not in self.rewrites:
                break
        else:
            return None  # 64 long-lived flows in a row on this port: its SYN is repeated in a second
        flow = TcpFlow(source, 6, source_address, source_port, target, target_port, now)
        flow.key = key
        flow.reverse = reverse
        flow.alias = index
        flow.isn = isn
        flow.held = b""
        flow.fins = 0
        flow.relay = None
        flow.dial = None
        as_sent = source_address + target + source_port.to_bytes(2, "big") + target_port.to_bytes(2, "big")
        as_seen = alias + listener + ports
        answer = target + source_address + target_port.to_bytes(2, "big") + source_port.to_bytes(2, "big")
        local = source is self.gateway
        both = 2 * size
        flow.forth = Rewrite(
            flow,
            as_seen,
            checksum.delta(as_sent[:both], as_seen[:both]),
            checksum.delta(as_sent, as_seen),
            True,
            local,
        )
        flow.back = Rewrite(
            flow,
            answer,
            checksum.delta(reverse[:both], answer[:both]),
            checksum.delta(reverse, answer),
            False,
            local,
        )
        self.rewrites[key] = flow.forth
        self.rewrites[reverse] = flow.back
        self.half_open.add(flow)
        self.count += 1
        return flow

    def establish(self, flow: TcpFlow) -> None:
        """The listener has accepted it."""
        self.half_open.discard(flow)
        flow.state = State.ESTABLISHED
        flow.forth.watched = flow.back.watched = False

    def close(self, flow: TcpFlow, now: float) -> None:
        """Its relay has ended; the kernel may still have bytes to deliver."""
        if flow.state >= State.CLOSING:
            return
        self.half_open.discard(flow)
        flow.touched = now
        flow.forth.watched = flow.back.watched = True
        if flow.fins & 3 == 3:
            flow.state = State.CLOSED
            self.closed.add(flow)
        else:
            flow.state = State.CLOSING
            self.closing.add(flow)

    def closing_flags(self, flow: TcpFlow, outward: bool, flags: int) -> None:
        """A FIN or RST went by."""
        flow.fins |= 3 if flags & RST else 1 if outward else 2
        if flags & RST and flow.state == State.HALF_OPEN:
            self._abandon(flow)  # the application has given up while its exit was dialled
        elif flow.fins == 3 and flow.state == State.CLOSING:
            self.closing.discard(flow)
            flow.state = State.CLOSED
            self.closed.add(flow)

    def remove(self, flow: TcpFlow) -> None:
        """Forget a flow, whatever its state."""
        for queue in (self.half_open, self.closing, self.closed, self.resting):
            queue.discard(flow)
        # A new flow may have taken the application's side of the pair in the meantime.
        if self.rewrites.get(flow.key) is flow.forth:
            del self.rewrites[flow.key]
        if self.rewrites.pop(flow.reverse, None) is not None:
            self.count -= 1
        flow.settle()

    def replace(self, flow: TcpFlow) -> None:
        """The application uses its port again towards the same target: the old flow gives up its key."""
        if self.rewrites.get(flow.key) is flow.forth:
            del self.rewrites[flow.key]

    # --- who must go

    def _rest(self, flow: TcpFlow) -> None:
        """Keep the pair from being used again within TIME_WAIT, if it could be."""
        pool = self.pools[len(flow.source_address)]
        if flow.state == State.CLOSED and pool.soon_again(flow.source_port, flow.alias):
            self.resting.add(flow)
        else:
            self.remove(flow)

    def _abandon(self, flow: TcpFlow) -> None:
        if self.evicted is not None:
            self.evicted(flow)
        self.remove(flow)

    def _room(self) -> bool:
        """Is there room for one more? Makes it, where it can: never at the cost of an established flow."""
        over = len(self.closed) + len(self.resting)
        if over >= self.limit:  # they hold no sockets, but they hold memory
            self.remove(self.closed.oldest() or self.resting.oldest())
        if self.count - over < self.limit and len(self.half_open) < self.half_open_limit:
            return True
        oldest = self.half_open.oldest()
        if oldest is not None:
            self._abandon(oldest)
            return True
        oldest = self.closing.oldest()
        if oldest is not None:
            self.remove(oldest)
        return oldest is not None
