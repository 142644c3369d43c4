"""Decisions as they come over the channel: taken, or nonsense, and nothing else."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zignet.control.process import NONSENSE
from zignet.peers.admission import Right
from zignet.peers.asking import MOST_REASON, Asking

RIGHT = {
    "decided": "somebody",
    "allowed": True,
    "reason": "line 1",
    "valid_s": 3.5,
    "rights": ["packets", "whole"],
    "provisional": False,
}
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


class Ear(Asking):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def decided(self, *what: Any) -> None:
        self.heard.append(what)


def test_a_decision() -> None:
    ear = Ear()
    ear.told(RIGHT)
    ((name, decision, valid_s, provisional),) = ear.heard
    assert (name, valid_s, provisional) == ("somebody", 3.5, False)
    assert (decision.allowed, decision.reason, decision.rights) == (
        True,
        "line 1",
        Right.PACKETS | Right.WHOLE,
    )


def test_a_no_gives_no_rights() -> None:
    ear = Ear()
    ear.told({**RIGHT, "allowed": False, "reason": "x" * 1000 + "\n", "valid_s": None})
    decision = ear.heard[0][1]
    assert decision.rights == Right.NONE
    assert len(decision.reason) == MOST_REASON


@pytest.mark.parametrize(
    "change",
    [
        {"decided": 7},
        {"allowed": 1},
        {"allowed": None},
        {"reason": None},
        {"valid_s": -1},
        {"valid_s": float("nan")},
        {"valid_s": "1"},
        {"rights": ["everything"]},
        {"rights": [1]},
        {"rights": 1},
        {"provisional": "no"},
    ],
)
def test_nonsense(change: dict[str, Any]) -> None:
    ear = Ear()
    with pytest.raises(NONSENSE):
        ear.told({**RIGHT, **change})
    for name in change:
        with pytest.raises(KeyError):
            ear.told({key: value for key, value in RIGHT.items() if key != name})
    assert ear.heard == []


@given(st.sampled_from(sorted(RIGHT)), values)
def test_any_value(name: str, value: object) -> None:
    ear = Ear()
    with suppress(*NONSENSE):
        ear.told({**RIGHT, name: value})
        assert isinstance(ear.heard[0][1].allowed, bool)
