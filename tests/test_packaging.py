"""The build: what is compiled, and that nothing depends on it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

from zignet import packet_path

ROOT = Path(__file__).parent.parent


def compiled_by_setup() -> list[str]:
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "COMPILED":
            return ast.literal_eval(node.value)
    raise AssertionError("setup.py lists no modules")


def test_what_is_compiled_is_what_version_tells_of():
    assert tuple(compiled_by_setup()) == packet_path.COMPILED


def test_the_build_succeeds_without_a_compiler(tmp_path):
    command = [sys.executable, "setup.py", "-q", "build_ext"]
    places = [f"--build-lib={tmp_path / 'lib'}", f"--build-temp={tmp_path / 'temp'}", "--force"]
    built = subprocess.run(
        command + places,
        cwd=ROOT,
        env={**os.environ, "CC": "/bin/false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert not list(tmp_path.rglob("*.so"))
    assert "nat.gateway" in built.stderr + built.stdout  # the failure is told
