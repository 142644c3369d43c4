"""Timestamps: over restarts, over a clock that is set back, and with a disk that fails."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zignet.noise import Stamps
from zignet.noise.stamp import AHEAD_US

YEAR_US = 365 * 86_400 * 1_000_000
NOW_US = 1_763_000_000_000_000


class Disk:
    def __init__(self) -> None:
        self.value = 0
        self.writes = 0
        self.full = False

    def write(self, value: int) -> None:
        if self.full:
            raise OSError("disk full")
        assert value > self.value
        self.value = value
        self.writes += 1


def test_the_clock_where_it_moves_on():
    stamps = Stamps(0, Disk().write)
    assert [stamps.next(NOW_US + i) for i in (0, 5, 70_000_000)] == [NOW_US, NOW_US + 5, NOW_US + 70_000_000]


def test_within_one_tick_and_when_the_clock_is_set_back():
    stamps = Stamps(0, Disk().write)
    got = [stamps.next(wall) for wall in (NOW_US, NOW_US, NOW_US - YEAR_US, 0, -5, NOW_US + 2)]
    assert got == [NOW_US, NOW_US + 1, NOW_US + 2, NOW_US + 3, NOW_US + 4, NOW_US + 5]


def test_after_a_restart_with_the_clock_a_year_back():
    disk = Disk()
    last = [Stamps(disk.value, disk.write).next(NOW_US - i * YEAR_US) for i in range(5)]
    assert last == sorted(set(last))


def test_it_is_written_before_it_is_used_and_seldom():
    disk = Disk()
    stamps = Stamps(0, disk.write)
    for i in range(1000):
        assert stamps.next(NOW_US + i * 50_000) <= disk.value  # 50 s of them
    assert disk.writes == 5


def test_a_stamp_that_could_not_be_reserved_is_not_given():
    disk = Disk()
    stamps = Stamps(0, disk.write)
    stamps.next(NOW_US)
    disk.full = True
    assert stamps.next(NOW_US + 1) == NOW_US + 1
    later = NOW_US + 2 * AHEAD_US
    for _ in range(2):
        with pytest.raises(OSError, match="full"):
            stamps.next(later)
    disk.full = False
    assert stamps.next(later) == later


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2**60))))
def test_always_greater(events: list[tuple[bool, int]]):
    disk = Disk()
    stamps, last = Stamps(0, disk.write), -1
    for restarted, wall in events:
        if restarted:
            stamps = Stamps(disk.value, disk.write)
        stamp = stamps.next(wall)
        assert stamp >= wall
        assert stamp > last
        last = stamp
