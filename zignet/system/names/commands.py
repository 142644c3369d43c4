"""Calling the programs that a mechanism needs."""

from __future__ import annotations

import os

from zignet.system.names.plan import Command
from zignet.system.names.wanted import NamesError

__all__ = ["call"]

TIMEOUT_S = 20.0  # a resolver that starts again takes its time


def call(command: Command) -> None:
    """Run it to its end, without a shell. Raises `NamesError` with what it said."""
    import subprocess  # the packet process needs it at start and stop only

    shown = " ".join(command[:4])
    environment = {**os.environ, "LC_ALL": "C"}
    with open(
        os.memfd_create("output"), "w+b"
    ) as output:  # no pipe: a service that it starts may keep that open
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=TIMEOUT_S,
                env=environment,
                check=False,
            )
        except OSError as error:
            raise NamesError(f"`{shown}` can't be run: {error.strerror}") from error
        except subprocess.TimeoutExpired as error:
            raise NamesError(f"`{shown}` did not end within {TIMEOUT_S:.0f} s") from error
        if done.returncode:
            output.seek(0)
            said = " ".join(output.read(4096).decode(errors="replace").split())[:300]
            raise NamesError(f"`{shown}` failed with {done.returncode}: {said or 'it said nothing'}")
