"""The table of flows at a thousand and at a million: the cost must not grow, and how much memory a flow takes.

pytest perf/test_table.py --benchmark-enable          the table of pytest-benchmark
pytest perf/test_table.py -s -k "ratio or bytes"      the ratios and the memory, in one line each
"""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import Callable
from functools import cache
from statistics import median
from types import SimpleNamespace
from typing import Any

import pytest

from nat.expiry import Expiry
from nat.gateway import Gateway
from nat.table import AliasPool, Table, TcpFlow

APP, LISTENER, PORT = bytes((100, 64, 0, 1)), bytes((127, 0, 0, 1)), 5000
SMALL, LARGE = 1_000, 1_000_000
ROUNDS, TIMES = 9, 20_000


class Filled:
    """A table with so many established flows."""

    def __init__(self, count: int) -> None:
        self.count = count
        nowhere = os.open("/dev/null", os.O_RDWR)
        self.gateway = Gateway(
            SimpleNamespace(now=0.0, turns=0), SimpleNamespace(fileno=lambda: nowhere, header=0)
        )
        pools = {4: AliasPool(bytes((100, 127, 0, 0)), 16)}
        self.table = Table(self.gateway, Expiry, pools, 2 * LARGE, 2 * LARGE)
        self.table.listen(LISTENER, PORT)
        for number in range(count):
            self.table.establish(self.opened(number))
        chance = random.Random(1)
        self.keys = [self.key(chance.randrange(count)) for _ in range(997)]
        self.at = 0
        self.next = count

    @staticmethod
    def key(number: int) -> bytes:
        """Of the flow with this number: 30,000 ports of one host, to many targets."""
        target = (0xCB000000 + number // 30_000).to_bytes(4, "big")
        return APP + target + (1024 + number % 30_000).to_bytes(2, "big") + b"\x01\xbb"

    def opened(self, number: int) -> TcpFlow:
        """Open the flow with this number."""
        key = self.key(number)
        flow = self.table.open(
            self.gateway, key, APP, 1024 + number % 30_000, key[4:8], 443, number & 0xFFFFFFFF, 0.0
        )
        assert flow is not None
        return flow

    def look_up(self) -> None:
        """Find some flow."""
        self.at = self.at + 1 if self.at < 996 else 0
        self.table.get(self.keys[self.at])

    def open_and_remove(self) -> None:
        """One whole life."""
        self.table.remove(self.opened(self.next))


@cache
def filled(count: int) -> Filled:
    """Made once: a million takes a while."""
    return Filled(count)


@pytest.mark.benchmark(group="table")
@pytest.mark.parametrize("count", [SMALL, LARGE])
@pytest.mark.parametrize("what", ["look_up", "open_and_remove"])
def test_table(benchmark: Any, what: str, count: int) -> None:
    table = filled(count)
    benchmark(getattr(table, what))
    assert len(table.table) == count


def cost(function: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    for _ in range(TIMES // ROUNDS):
        function()
    return (time.perf_counter() - start) * ROUNDS / TIMES


@pytest.mark.parametrize("what", ["look_up", "open_and_remove"])
def test_ratio(what: str) -> None:
    small, large = getattr(filled(SMALL), what), getattr(filled(LARGE), what)
    rounds = [(cost(small), cost(large)) for _ in range(ROUNDS)]
    few, many = (median(one[i] for one in rounds) for i in (0, 1))
    print(
        f"\n{what.replace('_', ' ')}: {few * 1e6:.2f} µs among {SMALL:,} flows, {many * 1e6:.2f} µs among "
        f"{LARGE:,}, ratio {many / few:.2f}"
    )
    assert few > 0


def resident() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_bytes_per_flow() -> None:
    gc.collect()
    before = resident()
    table = Filled(100_000)
    each = (resident() - before) / 100_000
    print(f"\n{each:.0f} bytes for each of {len(table.table):,} flows, its two keys and rewrites included")
    assert each < 4096
