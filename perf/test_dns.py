"""The map of fake addresses at 1,000 and at 1,000,000 names: cost of a look-up, bytes of a name.

pytest perf/test_dns.py --benchmark-enable      the table of pytest-benchmark
pytest perf/test_dns.py -s -k ratio             ratios and memory, in one line each

`answer` is the whole of an answer that is not kept ready, with its look-up by name; `name` and `address` are the bare
look-ups. Names are taken at random from all of them, so nothing of the large map lies in the processor's caches; `hot`
asks the large map for the same 1,000 as the small one, as a household does.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable
from functools import cache
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from statistics import median

import pytest

from zignet.dns.answers import Answers
from zignet.dns.fakes import Fakes
from zignet.dns.wire import make_query
from zignet.dns.zone import Zone

POOL4, POOL6 = IPv4Network("10.0.0.0/8"), IPv6Network("2001:2::/64")
SMALL, LARGE = 1_000, 1_000_000
KINDS = ("answer", "name", "address")
ASKED, ROUNDS = 20_000, 9


class Nowhere:
    def reserve(self, ceiling: int) -> None: ...
    def release(self, numbers: object) -> None: ...
    def assigned(self, number: int, key: str, wall: int) -> None: ...


def name(number: int) -> str:
    return f"www{number}.site-{number % 997}.example"


@cache
def fakes_of(count: int) -> Fakes:
    fakes = Fakes(POOL4, POOL6, Nowhere(), time.time)
    for number in range(count):
        fakes.number_of(name(number))
    return fakes


def work(kind: str, count: int, among: int) -> Callable[[], None]:
    """ASKED look-ups in a map of `count` names, at random among the first `among`."""
    fakes = fakes_of(count)
    chance = random.Random(among)
    names = [name(chance.randrange(among)) for _ in range(ASKED)]
    if kind == "name":
        return lambda: _each(fakes.number_of, names)
    if kind == "address":
        addresses = [fakes.address4(fakes.number_of(each) or 0) for each in names]
        return lambda: _each(fakes.lookup, addresses)
    answers = Answers(Zone(None, []), fakes, lambda name: True)  # type: ignore[arg-type]
    queries = [make_query(each, 1) for each in names]
    clock = [0.0]

    def answer() -> None:
        for query in queries:
            clock[0] += 100.0  # nothing is ready any more
            answers.answer(query, clock[0])

    return answer


def _each(look: Callable[[object], object], items: list[object]) -> None:
    for item in items:
        look(item)


def seconds_of(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize("count", [SMALL, LARGE])
@pytest.mark.parametrize("kind", KINDS)
def test_look_up(benchmark, kind, count):
    benchmark(work(kind, count, count))


@pytest.mark.parametrize("kind", KINDS)
def test_ratio(kind):
    """In turns, so that what else the machine does meets all three."""
    each = [work(kind, SMALL, SMALL), work(kind, LARGE, LARGE), work(kind, LARGE, SMALL)]
    rounds = [[seconds_of(run) for run in each] for _ in range(ROUNDS)]
    small, large, hot = (median(times) * 1e9 / ASKED for times in zip(*rounds, strict=True))
    to_large, to_hot = (median(times[at] / times[0] for times in rounds) for at in (1, 2))
    print(
        f"\n{kind}: {small:.0f} ns of {SMALL} names, {large:.0f} ns of {LARGE} ({to_large:.2f} x), "
        f"hot {hot:.0f} ns ({to_hot:.2f} x)"
    )


def test_memory_ratio():
    fakes_of.cache_clear()
    gc.collect()
    before = resident()
    fakes = fakes_of(LARGE)
    gc.collect()
    print(f"\n{(resident() - before) / len(fakes):.0f} bytes a name, {len(fakes)} names")
