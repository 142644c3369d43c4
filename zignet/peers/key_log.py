"""Session keys in a file, for who wants to look into captures of this node's traffic (`zignet wire-dump`)."""

from __future__ import annotations

import logging
import os
from pathlib import Path

__all__ = ["KeyLogFile"]

log = logging.getLogger("zignet.peers")


class KeyLogFile:
    """Session keys for `zignet wire-dump`: a file of mode 0600, because the configuration asks for it.

    A file that can't be written is told once, and is no reason to talk to nobody.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.fchmod(self._fd, 0o600)
        except OSError as error:
            self._give_up(error)
            return
        log.warning("session keys are written to %s: who reads it can read this node's traffic", path)

    def write(self, line: str) -> None:
        """Add a session."""
        if self._fd >= 0:
            try:
                os.write(self._fd, line.encode())
            except OSError as error:
                self._give_up(error)

    def close(self) -> None:
        """No more sessions. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _give_up(self, error: OSError) -> None:
        log.error(
            "key_log: %s can't be written (%s): no more session keys are kept", self._path, error.strerror
        )
        self.close()
