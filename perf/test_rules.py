"""Rule match at 10 and at 100,000 rules: the cost must not grow with them.

pytest perf/test_rules.py --benchmark-enable          the table of pytest-benchmark
pytest perf/test_rules.py -s -k ratio                 the ratio, load time and memory, in one line each
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import median

import pytest

from zignet.exits import Direct
from zignet.routing import Lines, Rules

EXITS = {"tokyo": Direct("tokyo")}
HOST, NOWHERE = bytes((100, 64, 0, 1)), bytes((248, 1, 1, 1))
SIZES = (10, 100_000)
KINDS = ("domain", "cidr", "miss")
TIMES, ROUNDS = 20_000, 9


def _texts(count: int) -> list[str]:
    """A list as people have them, of the same shape at any size: seven of ten about names."""
    chance = random.Random(count)
    texts = []
    for number in range(count - 1):
        match number % 10:
            case 0:
                texts.append(f"DOMAIN,host{number}.cdn.example,tokyo")
            case 5 | 6:
                network = f"{chance.randrange(1, 200)}.{number >> 8 & 255}.{number & 255}.0"
                texts.append(f"IP-CIDR,{network}/{chance.choice((20, 22, 24, 24))},tokyo")
            case 1:
                texts.append(f"IP-CIDR6,2001:{number >> 8:x}:{number & 255:x}::/48,tokyo")
            case 2 | 7:
                texts.append(f"DOMAIN-SUFFIX,ads.site{number:06}.com,tokyo")
            case _:
                texts.append(f"DOMAIN-SUFFIX,site{number:06}.net,tokyo")
    return [*texts, "MATCH,direct"]


@cache
def _rules(count: int) -> tuple[Rules, list[str]]:
    texts = _texts(count)
    return Rules.parse(Lines((text, "rules.txt", at) for at, text in enumerate(texts, 1)), EXITS), texts


def _question(count: int, kind: str) -> Callable[[], object]:
    """One call of `choose` that a rule in the middle of the list answers, or none does."""
    rules, texts = _rules(count)
    middle = texts[count // 2 :]
    target, name = NOWHERE, "www.ads.nothing.here"
    if kind == "domain":
        name = "www." + next(text for text in middle if "SUFFIX,ads." in text).split(",")[1]
    elif kind == "cidr":
        network = next(text for text in middle if text.startswith("IP-CIDR,")).split(",")[1]
        target, name = bytes(map(int, network.partition("/")[0].split("."))), ""
    choose = rules.choose

    def ask() -> object:
        return choose(6, HOST, 40000, target, 443, name)

    return ask


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", SIZES)
def test_rule_match(benchmark, count: int, kind: str):
    route = benchmark(_question(count, kind))
    assert route.exit.name == ("direct" if kind == "miss" else "tokyo")


@pytest.mark.parametrize("kind", KINDS)
def test_ratio(kind: str):
    """Both sizes in turn, so that a busy machine slows both alike."""
    few, many = (_question(count, kind) for count in SIZES)
    pairs = [(_nanoseconds(few), _nanoseconds(many)) for _ in range(ROUNDS)]
    one, other = (min(each) for each in zip(*pairs, strict=True))
    ratio = median(many / few for few, many in pairs)
    print(f"\n{kind:>8}: {one:5.0f} ns at 10 rules, {other:5.0f} ns at 100,000: {ratio:.2f} ×")


def test_load():
    """How long 100,000 lines take to become rules, and what they hold in memory."""
    texts = _texts(100_000)
    gc.collect()
    before, begin = _resident(), time.perf_counter()
    lines = Lines((text, "rules.txt", at) for at, text in enumerate(texts, 1))
    rules = Rules.parse(lines, EXITS)
    seconds = time.perf_counter() - begin
    gc.collect()
    print(
        f"\n100,000 rules: {seconds:.2f} s to load, {(_resident() - before) / 2**20:.1f} MiB with their text"
    )
    assert len(rules) == 100_000


def _nanoseconds(ask: Callable[[], object]) -> float:
    begin = time.perf_counter()
    for _ in range(TIMES):
        ask()
    return (time.perf_counter() - begin) / TIMES * 1e9


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
