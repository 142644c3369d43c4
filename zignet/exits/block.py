"""The exit that lets nothing out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nat.exit import Reason, Refusal, Target

__all__ = ["Block"]

_BLOCKED = Refusal(Reason.PROHIBITED, "blocked by a rule")


@dataclass(frozen=True, slots=True)
class Block:
    """Refuses every flow: the application sees a RST, or ICMP "administratively prohibited", or what `refusal` says."""

    where: ClassVar[str] = ""

    name: str = "block"
    kind: str = "block"
    refusal: Refusal = _BLOCKED

    def tcp(self, target: Target) -> Refusal:
        """No."""
        return self.refusal

    def udp(self) -> Refusal:
        """No."""
        return self.refusal
