"""`zignet peers` and `zignet ping`: who is there, and by which way."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from zignet.cli.text import duration, printable, size
from zignet.control.messages import Peer, Ping

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Pings", "ping", "table"]

_STATES = {"connected": "green", "connecting": "yellow", "idle": "dim"}


def table(peers: Sequence[Peer], most: int | None = None) -> Table:
    """At most so many of them, the connected ones first."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    order = {"connected": 0, "connecting": 1}
    chosen = sorted(peers, key=lambda peer: (order.get(peer["state"], 2), peer["name"] or peer["key"]))
    shown = chosen[:most]
    connected = sum(peer["state"] == "connected" for peer in peers)
    caption = f"{len(peers)} peer{'' if len(peers) == 1 else 's'}, {connected} connected"
    if len(shown) < len(peers):
        caption += f"; the first {len(shown)}, --all for every one"
    result = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        show_edge=False,
        caption=Text(caption),
        caption_justify="left",
    )
    for heading in ("peer", "key", "address", "path"):
        result.add_column(heading, no_wrap=True)
    for heading in ("handshake", "received", "sent", "rtt", "loss"):
        result.add_column(heading, no_wrap=True, justify="right")
    for peer in shown:
        result.add_row(
            Text(printable(peer["name"]) or "–", style=_STATES.get(peer["state"], "")),
            Text(f"{peer['key'][:8]}…"),
            Text(peer["address"]),
            Text(peer["path"] if peer["state"] != "idle" else "", style=_STATES.get(peer["state"], "")),
            "–" if peer["handshake_age_s"] is None else f"{duration(peer['handshake_age_s'])} ago",
            size(peer["received"]),
            size(peer["sent"]),
            "–" if peer["rtt_s"] is None else milliseconds(peer["rtt_s"]),
            "–" if peer["loss"] is None else f"{peer['loss'] * 100:.1f} %",
        )
    return result


class Pings:
    """What came of some pings."""

    def __init__(self) -> None:
        self.sent = 0
        self.times_s: list[float] = []

    def add(self, result: Ping) -> None:
        """One more."""
        self.sent += 1
        if result["rtt_s"] is not None:
            self.times_s.append(result["rtt_s"])

    def summary(self) -> str:
        """As `ping` ends."""
        lost = 100 * (self.sent - len(self.times_s)) / max(self.sent, 1)
        text = f"{self.sent} sent, {len(self.times_s)} answered, {lost:.0f} % lost"
        if self.times_s:
            mean = sum(self.times_s) / len(self.times_s)
            times = " / ".join(map(milliseconds, (min(self.times_s), mean, max(self.times_s))))
            text += f"; min / avg / max {times}"
        return text


def ping(
    ask: Callable[[], Ping], count: int, every_s: float, say: Callable[[str], None]
) -> tuple[Pings, list[dict[str, Any]]]:
    """Ask `count` times (0: until interrupted), and say how it went each time."""
    pings = Pings()
    results: list[dict[str, Any]] = []
    try:
        while True:
            before = time.monotonic()
            result = ask()
            pings.add(result)
            results.append(dict(result))
            say(line(result, pings.sent))
            if pings.sent == count:
                break
            time.sleep(max(0.0, every_s - (time.monotonic() - before)))
    except KeyboardInterrupt:
        pass
    return pings, results


def line(result: Ping, number: int) -> str:
    """One answer, or that there was none."""
    who = printable(result["peer"])
    if result["rtt_s"] is None:
        return f"no answer from {who}: {printable(result['error'] or 'timed out')}"
    how = ", after a handshake" if result["handshake"] else ""
    return f"pong from {who} via {result['path']}: seq={number} time={milliseconds(result['rtt_s'])}{how}"


def milliseconds(seconds: float) -> str:
    """A round trip as people read it."""
    value = seconds * 1e3
    return f"{value:.2f} ms" if value < 10 else f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"
