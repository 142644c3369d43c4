"""The exit that lets nothing out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nat.exit import Reason, Refusal, Target

__all__ = ["Block"]

_BLOCKED = Refusal(Reason.PROHIBITED, "blocked by a rule")


@dataclass(frozen=True, slots=True)
class Block:
    """Refuses every flow: the application sees a RST, or ICMP "administratively prohibited"."""

    kind: ClassVar[str] = "block"
    where: ClassVar[str] = ""

    name: str = "block"

    def tcp(self, target: Target) -> Refusal:
        """No."""
        return _BLOCKED

    def udp(self) -> Refusal:
        """No."""
        return _BLOCKED
