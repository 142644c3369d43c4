"""A flow: one conversation of an application, from a source, to a target, by an exit.

The state of a TCP flow is one of `State`; what moves it is in this table and nowhere else:

    DIALLING ──exit stands──► HALF_OPEN ──accept──► ESTABLISHED ──relay ends──► CLOSING ──both FINs, or RST──► CLOSED
       │  (a flow whose exit needs the name starts in HALF_OPEN)                   │
       └──────────── exit refuses, evicted ──────────► gone ◄──── silent too long ─┘
"""

from __future__ import annotations

from enum import IntEnum
from itertools import count
from typing import Any, Protocol

from nat.exit import Route

__all__ = ["Flow", "Source", "State"]


class State(IntEnum):
    """Where a flow is in its life."""

    DIALLING = 0  # its SYN is held back until the exit has answered
    HALF_OPEN = 1  # its SYN went to the listener, which has not accepted yet
    ESTABLISHED = 2  # accepted: a relay owns it
    CLOSING = 3  # the relay has ended; the kernel still delivers what it holds
    CLOSED = 4  # over; it lingers for retransmissions


class Source(Protocol):
    """Where a flow's packets come from and its answers go: the local TUN, or a peer."""

    def chosen(self, flow: Flow) -> Route | None:
        """Where its new flow goes; None: the rules decide."""
        ...

    def deliver(self, start: int, length: int) -> None:
        """Send the packet that lies in the gateway's buffer at `start` to the flow's application."""
        ...

    def send(self, packet: bytes) -> None:
        """Send a packet that was made here: a RST, an ICMP message."""
        ...

    def write(self, pieces: list[Any], segmented: bool = False) -> None:
        """Send one packet from pieces; the first begins with the virtio_net_hdr, where the source has one."""
        ...


_numbers = count(1)


class Flow:
    """What people ask about a flow; the protocols add what they need."""

    __slots__ = (
        "born",
        "down",
        "ech",
        "ended",
        "error",
        "known_by",
        "name",
        "number",
        "protocol",
        "route",
        "source",
        "source_address",
        "source_port",
        "state",
        "target",
        "target_port",
        "touched",
        "up",
    )

    def __init__(
        self,
        source: Source,
        protocol: int,
        source_address: bytes,
        source_port: int,
        target: bytes,
        target_port: int,
        now: float,
    ) -> None:
        self.number = next(_numbers)
        self.source = source
        self.protocol = protocol
        self.source_address = source_address
        self.source_port = source_port
        self.target = target
        self.target_port = target_port
        self.state: int = State.HALF_OPEN
        self.name: str | None = None  # None: not known (yet)
        self.known_by = "address"  # how the name was known: "tls", "http", "h2", "quic", or only the address
        self.ech = False
        self.route: Route | None = None
        self.born = now
        self.touched = now
        self.ended = 0.0
        self.error = ""
        self.up = 0  # bytes from the application
        self.down = 0  # bytes to it

    def settle(self) -> None:
        """Let go of what only a live flow needs; it may be shown for a while yet."""
        self.source = None  # type: ignore[assignment]  # nobody sends to an ended flow
