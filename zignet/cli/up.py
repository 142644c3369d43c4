"""`zignet up`: become the packet process, which reads the configuration (once: it may be long) and judges it.

The packet process is another program, `python -m zignet.node`, in the same process (exec): same pid, so
systemd and signals find it, and nothing of the command line stays in its memory.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import zignet
from zignet.cli.files import candidates

__all__ = ["command_line", "up"]


def up(path: Path | None, verbosity: int = 0) -> NoReturn:
    """Never returns: the process becomes the node. `verbosity` is -1 (quiet), 0, 1 or 2."""
    if path is None and verbosity >= 0:
        looked = ", ".join(str(candidate) for candidate in candidates())
        print(f"zignet: no configuration file ({looked}): running with defaults", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    command = command_line(path, verbosity)
    os.execve(command[0], command, _environment())  # noqa: S606 (our own interpreter)


def command_line(path: Path | None, verbosity: int = 0) -> list[str]:
    """The node's command. -P keeps the working directory out of its module path: it runs as root."""
    command = [sys.executable, "-P", "-m", "zignet.node"]
    if path is not None:
        command += ["--config", str(path.absolute())]
    return command + ["-q"] * (verbosity < 0) + ["-v"] * max(verbosity, 0)


def _environment() -> dict[str, str]:
    """Ours, with the directory that this package was found in: -P leaves out a source tree.

    And glibc is to give back what a start with a long list needs for a moment: 0.2 KiB for each of 100,000 peers.
    """
    root = str(Path(zignet.__file__).resolve().parent.parent)
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != root]
    memory = {"MALLOC_TRIM_THRESHOLD_": str(128 << 10)}  # its default, which it would raise by itself
    return {**memory, **os.environ, "PYTHONPATH": os.pathsep.join([root, *paths])}
