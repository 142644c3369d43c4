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
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except OSError as error:
        raise NamesError(f"`{shown}` can't be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise NamesError(f"`{shown}` did not end within {TIMEOUT_S:.0f} s") from error
    if done.returncode:
        said = " ".join(done.stdout.decode(errors="replace").split())[:300]
        raise NamesError(f"`{shown}` failed with {done.returncode}: {said or 'it said nothing'}")
