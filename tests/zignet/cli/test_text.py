"""Sizes, times and names as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zignet.cli.text import duration, printable, size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.0K"),
        (1234, "1.2K"),
        (99_940, "99.9K"),
        (99_960, "100K"),
        (999_499, "999K"),
        (999_999, "1.0M"),
        (56_789_012, "56.8M"),
        (123e9, "123G"),
        (5e15, "5.0P"),
    ],
)
def test_size(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0s"),
        (0.04, "0.0s"),
        (9.94, "9.9s"),
        (9.96, "10s"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (245, "4m05s"),
        (7380, "2h03m"),
        (446_400, "5d04h"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.integers(0, 10**17))
def test_size_stays_narrow(count: int) -> None:
    assert len(size(count)) <= 5


@given(st.floats(0, 86400 * 99))
def test_duration_stays_narrow(seconds: float) -> None:
    assert len(duration(seconds)) <= 6


@given(st.text())
def test_nothing_steers_the_terminal(text: str) -> None:
    assert printable(text).isprintable()
    assert len(printable(text)) == len(text)
