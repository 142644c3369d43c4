"""What reads messages and keeps the map knows no socket, clock or loop; a node without names loads none of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import zignet.dns
from tests.zignet.wire.test_wire_is_pure import FORBIDDEN, imported

FOLDER = Path(zignet.dns.__file__).parent
PURE = (
    "answers",
    "choice",
    "directory",
    "fakes",
    "found",
    "name_table",
    "patterns",
    "service",
    "wire",
    "zone",
)


@pytest.mark.parametrize("name", PURE)
def test_no_module_imports_the_world(name):
    assert not FORBIDDEN & set(imported(FOLDER / f"{name}.py"))


def test_a_node_loads_it_only_where_it_is_wanted():
    program = "import sys, zignet.node; print(*sys.modules)"
    root = str(Path(__file__).parents[3])
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    modules = set(loaded.stdout.split())
    assert "zignet.node" in modules
    assert not {"zignet.dns.names", "dnslib", "sqlite3"} & modules
