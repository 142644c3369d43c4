"""`zignet up`: check what can be checked, then become the packet process.

The packet process is another program, `python -m zignet.node`, in the same process (exec): same pid, so
systemd and signals find it, and nothing of the command line stays in its memory.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import zignet
from zignet.cli.errors import ExitCode, Fault
from zignet.cli.files import candidates, load

__all__ = ["command_line", "up"]

_CAP_NET_ADMIN = 12  # include/uapi/linux/capability.h


def up(path: Path | None, verbosity: int = 0) -> NoReturn:
    """Never returns: the process becomes the node. `verbosity` is -1 (quiet), 0, 1 or 2."""
    config = load(path)
    if config.tun.descriptor is None and not _may_administer_networks():
        raise Fault(
            "a TUN interface and routes need CAP_NET_ADMIN, which this process does not have. "
            "Run it with sudo, or as a service (see docs/operations.md).",
            ExitCode.PRIVILEGES,
        )
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
    """Ours, with the directory that this package was found in: -P leaves out a source tree."""
    root = str(Path(zignet.__file__).resolve().parent.parent)
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != root]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, *paths])}


def _may_administer_networks() -> bool:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return os.geteuid() == 0
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_NET_ADMIN & 1)
    return os.geteuid() == 0
