"""`zignet doctor`: does this machine have what the engine needs?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zignet.cli.text import printable

if TYPE_CHECKING:
    from rich.console import Console

    from zignet.system.doctor import Check

__all__ = ["as_json", "is_well", "show"]

_STYLES = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red"), "skip": ("-", "dim")}


def is_well(checks: Sequence[Check]) -> bool:
    """Whether nothing failed; warnings are no failure."""
    return all(_state(check) != "fail" for check in checks)


def as_json(checks: Sequence[Check]) -> list[dict[str, str]]:
    """One object for each check."""
    return [
        {"name": check.name, "state": _state(check), "detail": check.detail, "advice": check.advice or ""}
        for check in checks
    ]


def show(console: Console, checks: Sequence[Check]) -> None:
    """A line for each check, and below it what to do."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for check in checks:
        sign, style = _STYLES.get(_state(check), ("?", ""))
        grid.add_row(Text(sign, style=style), Text(check.name, style="bold"), Text(printable(check.detail)))
        if check.advice and _state(check) in ("warn", "fail"):
            grid.add_row("", "", Text(f"→ {printable(check.advice)}", style=style))
    console.print(grid)
    failed = sum(_state(check) == "fail" for check in checks)
    warned = sum(_state(check) == "warn" for check in checks)
    if failed:
        console.print(f"[red]{failed} of {len(checks)} checks failed[/]; `zignet up` will not work as it is.")
    elif warned:
        console.print(f"[yellow]Works, with {warned} warning{'' if warned == 1 else 's'}.[/]")
    else:
        console.print("[green]All is well.[/]")


def _state(check: Check) -> str:
    return str(getattr(check.state, "name", check.state)).lower()
