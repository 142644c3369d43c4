"""What went through each exit since the start."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from nat.flow import Flow

__all__ = ["ExitTally", "Tally"]

RECENT = 512  # ended flows that can still be shown


@dataclass(slots=True)
class ExitTally:
    """One exit's ended flows, and its dials."""

    flows: int = 0
    up: int = 0  # bytes from applications
    down: int = 0
    dials: int = 0
    failures: int = 0
    last_error: str = ""
    last_error_at: float = 0.0  # monotonic seconds


class Tally:
    """The books: totals, per exit, and the last flows that ended."""

    def __init__(self) -> None:
        self.flows = 0
        self.up = 0
        self.down = 0
        self.recent: deque[Flow] = deque(maxlen=RECENT)
        self.exits: dict[str, ExitTally] = {}
        self._number = 0

    def of(self, exit_name: str) -> ExitTally:
        """The books of one exit."""
        tally = self.exits.get(exit_name)
        if tally is None:
            tally = self.exits[exit_name] = ExitTally()
        return tally

    def ended(self, flow: Flow) -> None:
        """A flow is over: its counts are final."""
        self.recent.append(flow)
        self.flows += 1
        self.up += flow.up
        self.down += flow.down
        if flow.route is not None:
            tally = self.of(flow.route.exit.name)
            tally.flows += 1
            tally.up += flow.up
            tally.down += flow.down

    def dialled(self, flow: Flow) -> None:
        """An exit is asked for a connection."""
        if flow.route is not None:
            self.of(flow.route.exit.name).dials += 1

    def failed(self, flow: Flow, message: str, now: float) -> None:
        """An exit did not give one."""
        if flow.route is not None:
            tally = self.of(flow.route.exit.name)
            tally.failures += 1
            tally.last_error = message
            tally.last_error_at = now
