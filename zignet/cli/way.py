"""What `zignet route explain` prints: a table for people, a document for scripts."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from zignet.cli.peers import milliseconds
from zignet.cli.text import printable
from zignet.cli.verdict import is_of_peer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from zignet.cli.probe import Probe
    from zignet.cli.route import Answer

__all__ = ["as_json", "show"]


def as_json(found: Answer) -> dict[str, Any]:
    """For scripts; every key is always there (docs/operations.md)."""
    destination = found.destination
    return {
        "name": destination.name,
        "addresses": found.addresses,
        "port": destination.port,
        "protocol": destination.protocol,
        "live": found.live,
        "enters": found.enters,
        "dns": None,
        "peer": None,
        "flows": [],
        **found.explanation,
        "others": found.others,
        "probe": None if found.probe is None else _probe_json(found, found.probe),
    }


def _probe_json(found: Answer, probe: Probe) -> dict[str, Any]:
    failed = found.failed_at
    return {
        "ok": failed is None,
        "address": probe.address or None,
        "port": probe.port,
        "took_s": round(sum(stage.took_s for stage in probe.stages), 6),
        "steps": [
            {
                "step": stage.step,
                "ok": stage.trouble is None,
                "took_s": round(stage.took_s, 6),
                "text": stage.text,
            }
            for stage in probe.stages
        ],
        "tls": {
            "version": probe.tls,
            "alpn": probe.alpn or None,
            "certificate": None if probe.certificate is None else asdict(probe.certificate),
        }
        if probe.tls
        else None,
        "http": {"status": probe.status, "location": probe.location or None} if probe.status else None,
        "failed": failed.step if failed is not None else None,
        "verdict": found.verdict or None,
    }


def show(console: Console, found: Answer) -> None:
    """The way, one line for each step; then how long each step took."""
    from rich.markup import escape
    from rich.table import Table

    from zignet.cli.flows import table

    explanation, destination = found.explanation, found.destination
    host = destination.name or destination.address or ""
    peer = explanation.get("peer")
    leaves = "leaves by" if found.enters else "meets no rule; by the rules it would leave by"
    exit_ = explanation["exit"]
    if peer is not None and is_of_peer(explanation):
        leaves, exit_ = "goes to the peer", peer["name"] or f"{peer['key'][:8]}…"
    refused = " (refused)" if explanation["refused"] else ""
    console.print(
        f"[bold]{escape(printable(host))}[/] port {destination.port}/{destination.protocol} {leaves} "
        f"[bold]{escape(printable(exit_))}[/]{refused}"
    )
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    for step in explanation["steps"]:
        grid.add_row(f"  {step['stage']}", escape(printable(step["text"])))
    for address, other in found.others.items():
        grid.add_row("  but", f"to {address} it leaves by {escape(other['exit'])}: {escape(other['rule'])}")
    console.print(grid)
    source = (
        "the rules of the running node"
        if found.live
        else "the configuration alone; no running node was reached"
    )
    console.print(f"[dim]from {source}[/]")
    if found.probe is not None:
        console.print("\nTried just now, as any program would:")
        console.print(_times(found.probe))
        if found.verdict:
            console.print(f"[red]{escape(printable(found.verdict))}[/]")
    elif flows := explanation.get("flows"):
        console.print("\nThe latest like it:")
        console.print(table(flows, console.width))


def _times(probe: Probe) -> Table:
    from rich.markup import escape
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(overflow="fold")
    for stage in probe.stages:
        colour = "green" if stage.trouble is None else "red"
        name = stage.step.replace("_", " ")
        text = escape(printable(stage.text)) if stage.step != "dns" or stage.trouble is None else "failed"
        grid.add_row(f"  [{colour}]{name}[/]", milliseconds(stage.took_s), text)
    if len(probe.stages) > 1:
        grid.add_row("  in all", milliseconds(sum(stage.took_s for stage in probe.stages)), "")
    return grid
