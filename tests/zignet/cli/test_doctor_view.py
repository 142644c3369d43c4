"""How checks are shown; what they check is tested with them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from enum import Enum
from typing import Any

import pytest
from rich.console import Console

from zignet.cli import doctor


class State(Enum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    state: State
    detail: str
    advice: str = ""


GOOD = Check("kernel", State.OK, "6.18")
WARNING = Check("offload", State.WARN, "no USO", "a kernel of 6.2 or later has it")
BAD = Check("/dev/net/tun", State.FAIL, "missing \x1b[2J[bold]", "modprobe tun")


def shown(*checks: Any) -> str:
    output = io.StringIO()
    doctor.show(Console(file=output, width=100), checks)
    return output.getvalue()


@pytest.mark.parametrize(
    ("checks", "well", "says"),
    [
        ([GOOD], True, "All is well"),
        ([GOOD, WARNING], True, "Works, with 1 warning."),
        ([GOOD, WARNING, BAD], False, "1 of 3 checks failed"),
    ],
)
def test_verdict(checks: Any, well: bool, says: str) -> None:
    assert doctor.is_well(checks) is well
    assert says in shown(*checks)


def test_advice_is_shown_where_it_is_needed() -> None:
    text = shown(Check("kernel", State.OK, "6.18", "nothing to do"), BAD)
    assert "→ modprobe tun" in text
    assert "nothing to do" not in text
    assert "\x1b" not in text
    assert "[bold]" in text


def test_json() -> None:
    assert doctor.as_json([WARNING]) == [
        {"name": "offload", "state": "warn", "detail": "no USO", "advice": "a kernel of 6.2 or later has it"}
    ]
