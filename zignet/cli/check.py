"""`zignet check`: is the configuration right? Nothing is opened, resolved or changed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

from zignet.cli.errors import ExitCode, Fault
from zignet.cli.files import candidates, load
from zignet.cli.text import printable

__all__ = ["Verdict", "examine", "examine_all", "summary"]


class Verdict(TypedDict):
    """What `zignet check --json` prints."""

    ok: bool
    path: str
    problems: list[dict[str, Any]]  # file, line, key, message
    exits: list[str]
    rules: int
    peers: int


def examine(path: Path | None) -> Verdict:
    """Read the file. Raises `Fault` where there is none, `ConfigError` where it is wrong."""
    if path is None:
        looked = ", ".join(str(candidate) for candidate in candidates())
        raise Fault(
            f"there is no configuration file: none of {looked} exists. Name one with -c.",
            ExitCode.CONFIGURATION,
        )
    config = load(path)
    return Verdict(
        ok=True,
        path=str(path),
        problems=[],
        exits=list(config.exits),
        rules=len(config.routes),
        peers=len(config.peers),
    )


def examine_all(path: Path | None) -> Verdict:
    """As `examine`, with what is wrong in the verdict."""
    from zignet.config import ConfigError

    try:
        return examine(path)
    except ConfigError as error:
        problems = [asdict(problem) for problem in error.problems]
        return Verdict(ok=False, path=str(path), problems=problems, exits=[], rules=0, peers=0)


def summary(verdict: Verdict) -> str:
    """One line about a configuration that is right."""
    exits = printable(", ".join(verdict["exits"])) or "none but direct and block"
    return f"{verdict['path']} is right; rules: {verdict['rules']}; exits: {exits}; peers: {verdict['peers']}"
