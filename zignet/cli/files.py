"""Which configuration file is meant, and its content."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from zignet.cli.errors import ExitCode, Fault

if TYPE_CHECKING:
    from zignet.config import Config

__all__ = ["STANDARD", "VARIABLE", "candidates", "find", "intended", "load", "read_input", "state_dir"]

VARIABLE = "ZIGNET_CONFIG"
STANDARD = Path("-")

_STATE_DIR = re.compile(r"""^state_dir:[ \t]+["']?([^"'#\n]+?)["']?[ \t]*(?:#.*)?$""", re.MULTILINE)


def candidates() -> list[Path]:
    """Where a configuration is looked for without -c and without $ZIGNET_CONFIG, best first."""
    return [Path("zignet.yaml"), Path.home() / ".zignet" / "zignet.yaml", Path("/etc/zignet/zignet.yaml")]


def find(given: Path | None) -> Path | None:
    """The file to use, or None where there is none. Raises `Fault` for one that was named but is missing."""
    if given is None and (named := os.environ.get(VARIABLE)):
        given = Path(named)
        origin = f"${VARIABLE}"
    else:
        origin = "-c"
    if given is not None:
        if not given.is_file():
            raise Fault(
                f"the configuration file {given} (from {origin}) does not exist", ExitCode.CONFIGURATION
            )
        return given
    return next((path for path in candidates() if path.is_file()), None)


def intended(given: Path | None) -> Path:
    """The file that a new configuration is written to."""
    return given or Path(os.environ.get(VARIABLE) or candidates()[0])


def load(path: Path | None) -> Config:
    """The configuration in the file, or the defaults. Raises `zignet.config.ConfigError`."""
    from zignet.config import Config, load_config

    return Config() if path is None else load_config(path)


def read_input(source: Path, most: int) -> bytes:
    """The first `most` + 1 bytes of a file, or of standard input for `-`. Raises `Fault`."""
    try:
        if source == STANDARD:
            return sys.stdin.buffer.read(most + 1)
        with source.open("rb") as file:
            return file.read(most + 1)
    except OSError as error:
        raise Fault(f"{source} can't be read: {error.strerror}") from None


def state_dir(path: Path | None) -> Path:
    """The state directory, to find the running node by.

    A node goes on with the older configuration when its file has been broken since, and must still be found; and a
    long file takes seconds to read. So where a node answers in the directory that the file seems to name, nothing
    else of the file is looked at. Raises `zignet.config.ConfigError` otherwise.
    """
    from zignet.control import Client, ControlError

    if path is not None and (guess := _guessed(path)) is not None:
        try:
            with Client(guess):
                return guess
        except (OSError, ControlError):
            pass  # what the configuration says of itself says more
    return load(path).state_dir


def _guessed(path: Path) -> Path | None:
    """What the file seems to say, without YAML's finer points; None where it could be read in another way."""
    from zignet.config import Config

    try:
        text = path.read_text(errors="replace")
        named = _STATE_DIR.search(text)
        if named is not None:
            return path.absolute().parent / Path(named[1]).expanduser()
        return None if "state_dir" in text else Config().state_dir
    except (OSError, RuntimeError):
        return None
