"""The wire knows no socket, no clock and no loop, and the packet process loads nothing that is for people."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import zignet.wire

FILES = sorted(Path(zignet.wire.__file__).parent.glob("*.py"))
FORBIDDEN = {
    "socket",
    "asyncio",
    "time",
    "datetime",
    "random",
    "os",
    "select",
    "threading",
    "scapy",
    "rich",
    "typer",
}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_module_imports_the_world(path):
    assert not FORBIDDEN & set(imported(path))


def test_what_is_for_people_is_not_loaded():
    program = "import sys, zignet.wire; print(*sys.modules)"
    root = str(Path(__file__).parents[3])
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    modules = set(loaded.stdout.split())
    assert "zignet.wire.headers" in modules
    assert not {f"zignet.wire.{name}" for name in ("capture", "links", "describe", "keylog")} & modules
