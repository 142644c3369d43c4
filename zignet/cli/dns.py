"""`zignet dns`: the node's name server as it is, and how this host's names come to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zignet.cli.errors import ExitCode, Fault
from zignet.cli.text import printable
from zignet.control import Client, NotRunning
from zignet.control.messages import DnsStatus

if TYPE_CHECKING:
    from rich.console import Console

    from zignet.system.names import Restored

__all__ = ["put_back", "restored_lines", "show", "status"]


def status(state_dir: Path) -> DnsStatus:
    """From the running node. Raises `ControlError`; without a node, it says what one that died has left."""
    try:
        with Client(state_dir) as client:
            return client.dns()
    except NotRunning as error:
        if left := _left(state_dir):
            raise NotRunning(f"{error} {left}") from error
        raise


def put_back(state_dir: Path, force: bool) -> Restored:
    """Take back what a node that is gone has changed. Raises `Fault`, `NamesError`."""
    from zignet.system.names import NamesError, restore

    if not force and _is_running(state_dir):
        raise Fault(
            "the node is running, and would not be asked for names any more. Stop it, which puts everything back; or "
            "say --force."
        )
    try:
        return restore(state_dir)
    except NamesError as error:
        code = ExitCode.PRIVILEGES if "only root" in str(error) else ExitCode.FAILURE
        raise Fault(str(error), code) from error


def restored_lines(restored: Restored) -> list[str]:
    """What `restore` says."""
    lines = [printable(line) for line in (*restored.done, *restored.left)]
    return lines or ["There is nothing to put back: the system's names are not led to ZigNet."]


def show(console: Console, status: DnsStatus) -> None:
    """Print the whole picture."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in _rows(status).items():
        if value:
            table.add_row(key, _safe(value))
    console.print(table)
    for note in status["notes"]:
        console.print(f"[yellow]note:[/] {_safe(note)}")


def _rows(status: DnsStatus) -> dict[str, str]:
    domains = "all names" if status["domains"] == ["."] else " ".join(status["domains"])
    others = ", ".join(status["upstreams"]) if status["others"] == "forward" else "refused"
    return {
        "server": ", ".join(status["listen"]),
        "mechanism": f"{status['mechanism']}: {status['why']}",
        "changed": "\n".join(status["changes"]),
        "led here": domains,
        "other names": others,
        "fake addresses": f"{status['fakes']} of {status['fakes_limit']}",
        "cache": f"{status['cached']} answer{'' if status['cached'] == 1 else 's'}",
        "queries": ", ".join(f"{count} {what}" for what, count in status["queries"].items() if count)
        or "none yet",
    }


def _is_running(state_dir: Path) -> bool:
    from zignet.control import ControlError

    try:
        with Client(state_dir):
            return True
    except NotRunning:
        return False
    except ControlError:  # somebody is there
        return True


def _left(state_dir: Path) -> str:
    """About what a node that died has changed and not put back."""
    from zignet.system.names import leftover

    if not leftover(state_dir):
        return ""
    return "This host's names are still led to it: `zignet dns restore` takes that back, and so does the next start."


def _safe(text: str) -> str:
    from rich.markup import escape

    return "\n".join(escape(printable(line)) for line in text.splitlines())
