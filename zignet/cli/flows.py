"""`zignet flows`: what is open now, once or live."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from zignet.cli.text import duration, printable, size
from zignet.control import Client
from zignet.control.messages import Flow

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["fetch", "table", "watch"]

_EXIT, _STATE = 10, 11  # columns of the screen
_ERRORS = 3  # different ones, below the table
_FIXED = 8 + _EXIT + 5 + 5 + 6 + _STATE + 8  # all but "to" and "rule", with the gaps


def fetch(state_dir: Path, ended: bool, exit_name: str | None) -> list[Flow]:
    """The flows, of one exit or of all."""
    with Client(state_dir) as client:
        return [flow for flow in client.flows(ended) if exit_name is None or flow["exit"] == exit_name]


def watch(console: Console, read: Callable[[], list[Flow]], as_json: bool, every_s: float) -> None:
    """Until interrupted: redraw on a terminal; elsewhere one table, or one line of JSON, after the other."""
    from rich.live import Live

    if as_json or not console.is_terminal:
        while True:
            flows = read()
            if as_json:
                print(json.dumps({"flows": flows}), flush=True)
            else:
                console.print(table(flows, console.width))
            time.sleep(every_s)
    with Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            flows = read()
            rows = max(1, console.height - 3 - _ERRORS)
            live.update(table(flows, console.width, rows), refresh=True)
            time.sleep(every_s)


def table(flows: Iterable[Flow], width: int, rows: int | None = None) -> Table:
    """At most so many of them, one line each, in so many columns of the screen (80 at least)."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    every = list(flows)
    shown = list(islice(every, rows))
    title = f"{len(every)} flow{'' if len(every) == 1 else 's'}"
    if len(shown) < len(every):
        title += f", the newest {len(shown)}"
    title += "".join(f"\n{count} × {error}" for error, count in _errors(shown))
    flexible = max(width, 80) - _FIXED
    to_width = flexible * 3 // 5
    result = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        show_edge=False,
        caption=Text(title),
        caption_justify="left",
    )
    result.add_column("to", no_wrap=True, max_width=to_width)
    result.add_column("known by", no_wrap=True, max_width=8)
    result.add_column("rule", no_wrap=True, max_width=flexible - to_width)
    result.add_column("exit", no_wrap=True, max_width=_EXIT)
    for heading in ("up", "down", "age"):
        result.add_column(heading, no_wrap=True, justify="right")
    result.add_column("state", no_wrap=True, max_width=_STATE)
    for flow in shown:
        result.add_row(
            Text(_tail(_target(flow), to_width)),
            Text(flow["known_by"] + ("+ech" if flow["ech"] else "")),
            Text(printable(_condition(flow))),
            Text(printable(flow["exit"])),
            size(flow["up"]),
            size(flow["down"]),
            duration(flow["age_s"]),
            Text(printable(flow["state"]), style="red" if flow["error"] else ""),
            style="dim" if flow["ended_s"] is not None else "",
        )
    return result


def _condition(flow: Flow) -> str:
    """The rule without its exit, which has a column of its own."""
    rule = flow["rule"]
    for end in (f" -> {flow['exit']}", f",{flow['exit']}"):
        rule = rule.removesuffix(end)
    return rule


def _errors(flows: Iterable[Flow]) -> list[tuple[str, int]]:
    """The most frequent errors, each with how often it stands there."""
    return Counter(printable(flow["error"]) for flow in flows if flow["error"]).most_common(_ERRORS)


def _tail(text: str, width: int) -> str:
    """The end of a name tells more than its beginning."""
    return text if len(text) <= width else f"…{text[1 - width :]}"


def _target(flow: Flow) -> str:
    """The name or the address, with the port; the protocol where it is not TCP."""
    target = flow["target"]
    if flow["name"]:
        target = f"{flow['name']}:{target.rpartition(':')[2]}"
    return printable(target if flow["protocol"] == "tcp" else f"{target}/{flow['protocol']}")
