"""What the engine asks of an exit, and what a router answers: the seam between `nat` and its user.

An exit never opens a socket. It says *how* a flow would leave (a plan); the engine's dialler does it. So an
exit is a value that tests can compare, and every socket is made in one place (`nat.sockets`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Protocol

__all__ = [
    "Associate",
    "AssociateHandshake",
    "Chooser",
    "Dial",
    "DialName",
    "Encapsulation",
    "Exit",
    "ExitFailure",
    "Handshake",
    "Lookup",
    "MayDial",
    "Reason",
    "Refusal",
    "Resolver",
    "Route",
    "StandIn",
    "Step",
    "Target",
    "UdpDirect",
]


class Reason(IntEnum):
    """Why a flow could not leave; the engine turns it into what the application would have seen."""

    REFUSED = 1  # the far end said no: RST, or ICMP port unreachable
    HOST_UNREACHABLE = 2  # ICMP host unreachable
    NET_UNREACHABLE = 3  # ICMP network unreachable
    TIMED_OUT = 4  # nothing came back: silence
    PROHIBITED = 5  # a rule or the exit's policy forbids it: RST, or ICMP administratively prohibited
    FAILED = 6  # the exit itself broke: RST


class Target(NamedTuple):
    """Where a flow wants to go."""

    address: bytes  # 4 or 16 bytes, network order
    port: int
    name: str | None = None  # set when the exit is to resolve this name instead of using the address
    only_name: bool = False  # the address stands for the name and can't be dialled: a fake IP


@dataclass(frozen=True, slots=True)
class Refusal:
    """The plan of an exit that does not carry this flow; and why a name has no address."""

    reason: Reason
    message: str = ""


class ExitFailure(Exception):
    """An exit's handshake failed. `reason` is for the application, the text for the person."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Step(NamedTuple):
    """One step of a handshake: what to send, whether it is over, and bytes that already belong to the flow."""

    send: bytes = b""
    done: bool = False
    rest: bytes = b""


class Handshake(Protocol):
    """A proxy protocol's client side, without sockets: bytes in, bytes out.

    `feed` raises `ExitFailure` when the proxy refuses or speaks nonsense; it never keeps more than a few KiB.
    """

    def start(self) -> bytes:
        """What to send as soon as the connection stands."""
        ...

    def feed(self, data: bytes) -> Step:
        """The proxy's next bytes, cut anywhere."""
        ...


@dataclass(frozen=True, slots=True)
class Dial:
    """Connect here, then shake hands (or not), then the stream is the flow's."""

    address: bytes  # 4 or 16 bytes
    port: int
    handshake: Handshake | None = None
    device: str = ""  # SO_BINDTODEVICE, where an exit is tied to an interface


MayDial = Callable[[bytes], bool]  # whether an address of 4 or 16 bytes may be connected or sent to


@dataclass(frozen=True, slots=True)
class DialName:
    """Resolve the name on this host, then connect to whichever of its addresses answers first (RFC 8305)."""

    name: str
    port: int
    device: str = ""
    may_dial: MayDial | None = None  # asked about every address; none left: PROHIBITED


StandIn = Callable[[Target], bytes | Refusal]


@dataclass(frozen=True, slots=True)
class UdpDirect:
    """Datagrams leave from a socket of our own, one for each source address and port (RFC 4787).

    A target that is only a name is resolved on this host, once for each flow.
    """

    device: str = ""
    may_dial: MayDial | None = None  # asked about the target, and about every address of a name
    ports: frozenset[int] = frozenset()  # of targets; empty: all
    stand_in: StandIn | None = (
        None  # where the datagrams of a flow are sent instead, and its answers come from
    )


class Lookup(Protocol):
    """A question to a resolver, under way."""

    def cancel(self) -> None:
        """The answer is no longer wanted, and will not come. Harmless after it has."""
        ...


class Resolver(Protocol):
    """Who turns names into addresses."""

    def resolve(self, name: str, done: Callable[[Sequence[bytes] | Refusal], None]) -> Lookup:
        """Look a name up: lower case, ASCII, no trailing dot.

        `done` is called once, perhaps before this returns: with its addresses (4 and 16 bytes, in the servers'
        order within a family, at least one), or with why there are none. Not after a `cancel`.
        """
        ...


class AssociateHandshake(Handshake, Protocol):
    """A handshake that ends with the address of a datagram relay, e.g. SOCKS5 UDP ASSOCIATE (RFC 1928 §7)."""

    @property
    def relay(self) -> tuple[bytes, int]:
        """Address and port that datagrams go to; valid once a step said `done`."""
        ...


@dataclass(frozen=True, slots=True)
class Associate:
    """Datagrams go through a relay that a control connection opens and keeps alive."""

    control: Dial  # its handshake is an AssociateHandshake
    encapsulate: type[Encapsulation]


class Encapsulation(Protocol):
    """How a relay's datagrams name their far end."""

    @staticmethod
    def header(target: Target) -> bytes:
        """The bytes to put before the payload of a datagram to `target`."""
        ...

    @staticmethod
    def parse(datagram: bytes | memoryview) -> tuple[bytes, int, int] | None:
        """(address, port, offset of the payload), or None where it is malformed or a fragment."""
        ...


class Exit(Protocol):
    """A way out. Stateless but for what its configuration says."""

    @property
    def name(self) -> str:
        """As in the configuration; unique."""
        ...

    def tcp(self, target: Target) -> Dial | DialName | Refusal:
        """How a TCP flow to `target` leaves."""
        ...

    def udp(self) -> UdpDirect | Associate | Refusal:
        """How UDP leaves, whatever the destination."""
        ...


class Route(NamedTuple):
    """A router's answer: the exit, and the rule's text for people."""

    exit: Exit
    rule: str
    by_name: bool = False  # send the sniffed name to the exit instead of the address
    name: str = ""  # what the target's address stands for, if it is a fake IP: all that the exit gets
    again: bool = False  # of a flow that was relayed here and goes on: it is in the books already
    whole: bool = False  # the exit gets the packets as they are: no flow of the engine's

    def target(self, address: bytes, port: int, sniffed: str) -> Target:
        """Where the exit is to go, for a flow to `address` that named itself `sniffed`, or "" """
        if self.name:
            return Target(address, port, self.name, only_name=True)
        return Target(address, port, sniffed if sniffed and self.by_name else None)


class Chooser(Protocol):
    """The rules, as the engine sees them. First match wins; O(1) in the number of rules."""

    def choose(
        self, protocol: int, source: bytes, source_port: int, target: bytes, port: int, name: str | None
    ) -> Route | None:
        """The route of a flow, or None when it depends on a name that is not known yet.

        `protocol` is the IP protocol number (6, 17, 1, 58); addresses are 4 or 16 bytes; `name` is None while
        unknown, "" once it is certain that there is none, else lower case without a trailing dot. With a name
        or "" the answer is never None.
        """
        ...
