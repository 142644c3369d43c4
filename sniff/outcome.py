"""What a sniffer answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["LIMIT", "NEED_MORE", "NOT_THIS", "Answer", "Found", "Outcome"]

LIMIT = 16384  # bytes that a sniffer looks at before it gives up


class Outcome(Enum):
    """An answer without a value."""

    NEED_MORE = "need more"  # nothing certain yet
    NOT_THIS = "not this"  # final: no protocol that we know, or broken, or nothing certain within the limit


@dataclass(frozen=True, slots=True)
class Found:
    """The final answer about a protocol that was understood."""

    protocol: str  # "tls", "http", "h2" or "quic"
    name: str  # lower case, no port, no trailing dot; "" when it carries no DNS name
    ech: bool = False  # an encrypted ClientHello (or its GREASE) was there: `name` is the outer one


Answer = Found | Outcome

NEED_MORE = Outcome.NEED_MORE
NOT_THIS = Outcome.NOT_THIS
