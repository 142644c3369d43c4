"""`zignet peers` and `zignet ping`: who is there, and by which way."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from zignet.cli.text import duration, printable, size
from zignet.control.messages import Peer, Ping

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Pings", "ping", "table"]

_STATES = {"connected": "green", "connecting": "yellow", "idle": "dim"}
_GAP = 2  # columns of the screen between two of the table
_NAME, _PATH = 12, 21  # columns of the screen that a name, and host:port in IPv4, are left at least
_LEFT = ("peer", "key", "address", "path", "admitted")
_REASON = 48  # of the reason why a peer is here
# On a narrow screen, this one first; --json has all
_DISPENSABLE = ("admitted", "key", "loss", "by it", "by us", "received", "sent")


def table(peers: Sequence[Peer], width: int, most: int | None = None) -> Table:
    """At most so many of them, the connected ones first, one line each, in so many columns of the screen."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    order = {"connected": 0, "connecting": 1}
    chosen = sorted(peers, key=lambda peer: (order.get(peer["state"], 2), peer["name"] or peer["key"]))
    shown = chosen[:most]
    columns = {heading: [printable(cell) for cell in cells] for heading, cells in _columns(shown).items()}
    room = _room(columns, width)
    result = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, _GAP - 1, 0, 0),
        show_edge=False,
        caption=Text(_caption(peers, len(shown))),
        caption_justify="left",
    )
    for heading in columns:
        justify: Literal["left", "right"] = "left" if heading in _LEFT else "right"
        result.add_column(heading, no_wrap=True, justify=justify, max_width=room.get(heading))
    for peer, cells in zip(shown, zip(*columns.values(), strict=True), strict=True):
        style = _STATES.get(peer["state"], "")
        styles = [style if heading in ("peer", "path") else "" for heading in columns]
        result.add_row(*map(Text, cells, styles))
    return result


def _columns(peers: Sequence[Peer]) -> dict[str, list[str]]:
    """What stands under each heading."""
    return {
        "peer": [peer["name"] or f"{peer['key'][:8]}…" for peer in peers],
        "key": [f"{peer['key'][:8]}…" for peer in peers],
        "address": [peer["address"] for peer in peers],
        "path": [peer["path"] if peer["state"] != "idle" else "" for peer in peers],
        "handshake": [
            _or_dash(peer["handshake_age_s"], lambda age: f"{duration(age)} ago") for peer in peers
        ],
        "received": [size(peer["received"]) for peer in peers],
        "sent": [size(peer["sent"]) for peer in peers],
        "rtt": [_or_dash(peer["rtt_s"], milliseconds) for peer in peers],
        "loss": [_or_dash(peer["loss"], lambda loss: f"{loss * 100:.1f} %") for peer in peers],
        **_flows(peers),
        **_reasons(peers),
    }


def _flows(peers: Sequence[Peer]) -> dict[str, list[str]]:
    """Flows by exits, where there are any: ours by the peer, the peer's by us."""
    columns = {
        "by it": [peer["exit_flows"] for peer in peers],
        "by us": [peer["guest_flows"] for peer in peers],
    }
    return {heading: list(map(str, counts)) for heading, counts in columns.items() if any(counts)}


def _reasons(peers: Sequence[Peer]) -> dict[str, list[str]]:
    """Why those may be here that nobody has configured."""
    reasons = [_cut(peer["admitted"] or "") if not peer["configured"] else "" for peer in peers]
    return {"admitted": reasons} if any(reasons) else {}


def _cut(text: str) -> str:
    return text if len(text) <= _REASON else f"{text[: _REASON - 1]}…"


def _or_dash(value: float | None, text: Callable[[float], str]) -> str:
    return "–" if value is None else text(value)


def _room(columns: dict[str, list[str]], width: int) -> dict[str, int]:
    """How wide names and paths may be; for their sake, columns that can be missed are taken away."""
    widths = {heading: max(map(len, (heading, *cells))) for heading, cells in columns.items()}
    name, path = widths.pop("peer"), widths.pop("path")
    missed = iter([heading for heading in _DISPENSABLE if heading in widths])
    while (left := width - sum(widths.values()) - _GAP * (len(widths) + 1)) < min(name, _NAME) + min(
        path, _PATH
    ):
        if (heading := next(missed, None)) is None:
            break
        del widths[heading], columns[heading]
    path = min(path, max(left - name, _PATH))
    return {"peer": max(left - path, 1), "path": path}


def _caption(peers: Sequence[Peer], shown: int) -> str:
    connected = sum(peer["state"] == "connected" for peer in peers)
    text = f"{len(peers)} peer{'' if len(peers) == 1 else 's'}, {connected} connected"
    ours, theirs = sum(peer["exit_flows"] for peer in peers), sum(peer["guest_flows"] for peer in peers)
    text += f"; flows: {ours} by their exits, {theirs} of theirs by ours" if ours or theirs else ""
    return text if shown == len(peers) else f"{text}; the first {shown}, --all for every one"


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
    return f"pong from {who} via {printable(result['path'])}: seq={number} time={milliseconds(result['rtt_s'])}{how}"


def milliseconds(seconds: float) -> str:
    """A round trip as people read it."""
    value = seconds * 1e3
    return f"{value:.2f} ms" if value < 10 else f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"
