"""What commands print: JSON for programs, and tables as wide as the terminal."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["make_console", "print_json"]

_PLAIN_WIDTH = 100  # columns where the output is no terminal


def make_console() -> Console:
    """For tables on standard output."""
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PLAIN_WIDTH
    return Console(width=width, highlight=False, emoji=False)


def print_json(value: Any) -> None:
    """One document."""
    print(json.dumps(value, indent=2, ensure_ascii=False))
