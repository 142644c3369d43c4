"""What `Rules.explain` answers: the way to a decision, for people."""

from __future__ import annotations

from dataclasses import dataclass

from nat.exit import Route

__all__ = ["Considered", "Explanation"]


@dataclass(frozen=True, slots=True)
class Considered:
    """One rule that matches the flow, or would with the right name."""

    index: int  # from 0; the number of rules for the default
    rule: str
    where: str  # file:line; "" for the default
    exit: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a flow leaves as it does.

    `matches` holds the first matching rule of each kind in the order of the rules, so its first is the
    winner, and the rest are what it came before. `undecided_by` holds the first few rules about names that
    stand ahead of every certain match, and so kept the flow from being decided at its SYN.
    """

    route: Route | None  # what `choose` answers; None while the name is needed and not known
    matches: tuple[Considered, ...]
    at_syn: bool  # decided before the name was known
    undecided_by: tuple[Considered, ...]
    undecided_count: int

    @property
    def winner(self) -> Considered | None:
        """The rule that decides, or None while the name is needed."""
        return self.matches[0] if self.route is not None else None

    @property
    def stage(self) -> str:
        """When the flow is decided, for people."""
        return "decided at the SYN" if self.at_syn else "decided after the sniff"
