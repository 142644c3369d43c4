"""What `zignet up` becomes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import zignet
from zignet.cli.up import _environment, command_line

ROOT = Path(zignet.__file__).parents[1]


def test_the_command(tmp_path: Path) -> None:
    node = [sys.executable, "-P", "-m", "zignet.node"]
    assert command_line(None) == node
    assert command_line(tmp_path / "z.yaml") == [*node, "--config", str(tmp_path / "z.yaml")]
    assert command_line(Path("z.yaml"), 2) == [*node, "--config", str(Path.cwd() / "z.yaml"), "-v", "-v"]
    assert command_line(None, -1) == [*node, "-q"]


def test_the_working_directory_lends_no_modules(tmp_path: Path) -> None:
    """It runs as root, often from wherever the person happens to be."""
    for package in ("zignet", "nat", "yaml"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise SystemExit('hostile')")
    program = "import nat, yaml, zignet; print(zignet.__file__)"
    interpreter = command_line(None)[:2]
    result = subprocess.run(
        [*interpreter, "-c", program],
        cwd=tmp_path,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.strip() == str(ROOT / "zignet" / "__init__.py")


def test_the_packet_process_imports_nothing_of_the_command_line() -> None:
    program = (
        "import sys, zignet.config, zignet.control, zignet.exits, zignet.routing, zignet.cli.errors\n"
        "print([name for name in ('typer', 'rich', 'zignet.cli.app') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], env=_environment(), capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
