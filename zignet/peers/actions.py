"""What a tunnel wants done, in the order in which it says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from zignet.peers.session import Session

__all__ = [
    "Action",
    "Confirmed",
    "Dead",
    "Ended",
    "Established",
    "Expired",
    "GaveUp",
    "Initiate",
    "Keepalive",
    "Prepared",
    "Respond",
    "Resumed",
    "Superseded",
    "Unheard",
]


@dataclass(frozen=True, slots=True)
class Initiate:
    """Send this initiation to `Paths.for_handshake(attempt)`."""

    message: bytes
    attempt: int  # 0, 1, … of one row of attempts


@dataclass(frozen=True, slots=True)
class Respond:
    """Send this response to where the initiation came from."""

    message: bytes
    origin: Any


@dataclass(frozen=True, slots=True)
class Prepared:
    """A session stands aside: open what comes for its index, and call `Tunnel.opened` when the first message was good.

    It may be gone before: its index is free then, its opening erased.
    """

    session: Session


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The session that stood aside is valid, and is the one to send on: send what waits."""

    session: Session


@dataclass(frozen=True, slots=True)
class Established:
    """Our initiation was answered. Open what comes for the session's index; send what waits on it, or a keepalive."""

    session: Session


@dataclass(frozen=True, slots=True)
class Superseded:
    """Another device of the same key has taken over: say farewell on these, on the path as it still is, and erase them.

    Their indices are free already. It comes before the `Confirmed` or `Established` that brought it about.
    """

    sessions: tuple[Session, ...]
    device: bytes  # the new one


@dataclass(frozen=True, slots=True)
class Ended:
    """The other side said farewell to a session, which is erased."""

    reason: int


@dataclass(frozen=True, slots=True)
class Keepalive:
    """Send a keepalive."""


@dataclass(frozen=True, slots=True)
class Unheard:
    """Data was sent, and nothing heard for too long: the path may be dead."""


@dataclass(frozen=True, slots=True)
class Dead:
    """The peer does not answer: tell whose connections need it now. Said again with each attempt in vain."""

    again: bool


@dataclass(frozen=True, slots=True)
class Resumed:
    """There is a new session, after silence: the peer may have been restarted. After `Confirmed` or `Established`."""


@dataclass(frozen=True, slots=True)
class GaveUp:
    """Nobody answered for long enough: drop what waits, and tell its senders."""


@dataclass(frozen=True, slots=True)
class Expired:
    """There was no new session for so long that the peer counts as gone. Nothing secret is left."""


Action = (
    Initiate
    | Respond
    | Prepared
    | Confirmed
    | Established
    | Superseded
    | Ended
    | Keepalive
    | Unheard
    | Dead
    | Resumed
    | GaveUp
    | Expired
)
