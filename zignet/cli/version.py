"""`zignet version`: what runs here, and whether its packet path is compiled."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, TypedDict

import zignet

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["VersionFacts", "facts", "show"]


class VersionFacts(TypedDict):
    """What `zignet version --json` prints."""

    zignet: str
    python: str
    implementation: str
    kernel: str
    machine: str
    modules: dict[str, str]  # compiled | interpreted, by module of the packet path


def facts() -> VersionFacts:
    """Gather them; imports the packet path."""
    from zignet.packet_path import compiled_modules

    return VersionFacts(
        zignet=zignet.__version__,
        python=platform.python_version(),
        implementation=platform.python_implementation(),
        kernel=f"{platform.system()} {platform.release()}",
        machine=platform.machine(),
        modules={
            module: "compiled" if compiled else "interpreted"
            for module, compiled in compiled_modules().items()
        },
    )


def show(console: Console, known: VersionFacts) -> None:
    """A few lines, and advice where nothing is compiled."""
    console.print(f"[bold]ZigNet {known['zignet']}[/]")
    console.print(f"{known['implementation']} {known['python']}, {known['kernel']}, {known['machine']}")
    modules = known["modules"]
    slow = [module for module, how in modules.items() if how == "interpreted"]
    if not slow:
        console.print(f"packet path: compiled ({', '.join(modules)})")
        return
    for module, how in modules.items():
        console.print(f"  {module}: {how}")
    console.print("[dim]Interpreted modules work the same, slower. With a C compiler and Python's headers[/]")
    console.print("[dim]in place, install again to have them compiled.[/]")
