"""Which configuration file is meant, and its content."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from zignet.cli.errors import ExitCode, Fault

if TYPE_CHECKING:
    from zignet.config import Config

__all__ = ["VARIABLE", "candidates", "find", "intended", "load", "state_dir"]

VARIABLE = "ZIGNET_CONFIG"

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


def state_dir(path: Path | None) -> Path:
    """The state directory, to find the running node by.

    A node goes on with the older configuration when its file has been broken since, and must still be found;
    so a file that is wrong is no error while a node answers in the directory that it seems to name.
    Raises `zignet.config.ConfigError` otherwise.
    """
    from zignet.config import Config, ConfigError
    from zignet.control import Client, ControlError

    try:
        return load(path).state_dir
    except ConfigError:
        assert path is not None  # the defaults are never wrong
        try:
            named = _STATE_DIR.search(path.read_text(errors="replace"))
            guess = Config().state_dir if named is None else path.parent / Path(named[1]).expanduser()
            with Client(guess):
                return guess
        except (OSError, RuntimeError, ControlError):
            pass  # the configuration's own error says more
        raise
