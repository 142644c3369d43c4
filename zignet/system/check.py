"""One result of `zignet doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

__all__ = ["Check", "State", "fail", "ok", "skip", "warn"]


class State(IntEnum):
    """How it stands; the greater, the worse."""

    OK = 0
    SKIP = 1  # could not be looked at, or does not apply
    WARN = 2  # works, but not as well or not for everybody
    FAIL = 3  # `zignet up` would not work


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, how it stands, what was seen, and what to do about it."""

    name: str
    state: State
    detail: str
    advice: str = ""


def ok(name: str, detail: str) -> Check:
    """All is well."""
    return Check(name, State.OK, detail)


def skip(name: str, detail: str, advice: str = "") -> Check:
    """Not looked at."""
    return Check(name, State.SKIP, detail, advice)


def warn(name: str, detail: str, advice: str) -> Check:
    """It works, but."""
    return Check(name, State.WARN, detail, advice)


def fail(name: str, detail: str, advice: str) -> Check:
    """It does not work."""
    return Check(name, State.FAIL, detail, advice)
