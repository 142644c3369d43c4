"""Who may come in: one question, one answer, whoever gives it.

The hub asks `admit` before it answers a stranger's handshake, and again at intervals while a peer is connected.
Here the configuration answers; other sources stand behind the same interface.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from enum import IntFlag
from typing import Protocol

from zignet.identity import PublicKey

__all__ = ["Admission", "ConfiguredAdmission", "Decision", "Right"]


class Right(IntFlag):
    """What an admitted peer may send."""

    NONE = 0
    PACKETS = 1  # TCP, UDP and ICMP to this host
    WHOLE = 2  # whole IP packets (protocol.md §6)


@dataclass(frozen=True, slots=True)
class Decision:
    """An answer of the policy."""

    allowed: bool
    reason: str  # one sentence, for the log and for people who ask why
    expires: float | None = None  # monotonic seconds, when to ask again; None: when the policy changes
    rights: Right = Right.NONE
    pending: bool = False  # neither yes nor no: somebody is, or can be, asked; `allowed` is False meanwhile


class Admission(Protocol):
    """A policy."""

    def admit(self, key: PublicKey, now: float) -> Decision:
        """Whether this key may talk to us, and what it may send. `now` in monotonic seconds. Raises nothing."""
        ...


_DENIED = Decision(False, "The configuration denies this key (inbound: deny).")
_PEER = Decision(True, "The configuration names this key as a peer (peers).", None, Right.PACKETS)
_ALLOWED = Decision(True, "The configuration allows this key (inbound: allow).", None, Right.PACKETS)
_CONTACT = Decision(
    True, "A contact (zignet contacts): it reaches what is published to it.", None, Right.PACKETS
)
_OPEN = Decision(
    True,
    "The configuration admits every key that it does not deny (inbound: default_action: allow).",
    None,
    Right.PACKETS,
)
_CLOSED = Decision(
    False,
    "The configuration names this key neither as a peer nor under inbound: allow, and admits nobody else "
    "(inbound: default_action: deny).",
)


class ConfiguredAdmission:
    """What the configuration says: `deny` before `peers` before `allow` before contacts before the default."""

    __slots__ = ("_allow", "_default", "_deny", "_is_contact", "_peers")

    def __init__(
        self,
        default_action: str,  # allow | deny
        allow: Iterable[PublicKey] = (),
        deny: Iterable[PublicKey] = (),
        peers: Container[PublicKey] = (),  # asked, not copied: it may be the node's own table
        is_contact: Callable[[PublicKey], bool] = lambda key: False,
    ) -> None:
        if default_action not in ("allow", "deny"):
            raise ValueError(f'"{default_action}" is neither allow nor deny')
        self._default = _OPEN if default_action == "allow" else _CLOSED
        self._allow = frozenset(allow)
        self._deny = frozenset(deny)
        self._peers = peers
        self._is_contact = is_contact

    def admit(self, key: PublicKey, now: float) -> Decision:
        """See `Admission`."""
        return self.listed(key) or self._default

    def listed(self, key: PublicKey) -> Decision | None:
        """What the lists say, and None where the default would."""
        if key in self._deny:
            return _DENIED
        if key in self._peers:
            return _PEER
        if key in self._allow:
            return _ALLOWED
        if self._is_contact(key):
            return _CONTACT
        return None
