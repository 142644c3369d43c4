"""Policies: a decision from memory, and a file of 1,000,000 keys: load, memory, look-up.

pytest perf/test_policy.py --benchmark-enable      the table of pytest-benchmark
pytest perf/test_policy.py -s -k ratio             ratios against a Python set of the same keys, and memory

The keys are 32 random bytes each: a file of so many lines is not looked at with the curve, see zignet/policy/keyfile.
`look` is the whole of a source's answer, with the inversion that gives the Ed25519 form of a key.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

import pytest

from zignet.config import FilePolicy
from zignet.identity import PublicKey, SecretKey, names
from zignet.policy.judge import Judge
from zignet.policy.keyfile import KeyFile, read_keys
from zignet.policy.source import Finding
from zignet.policy.sources.file import FileSource

SMALL, LARGE = 1_000, 1_000_000
ASKED, ROUNDS = 20_000, 5
NOTATIONS = ("name", "hex", "base58")


def base58(key: bytes) -> str:
    import base58 as library

    return library.b58encode(key).decode("ascii")


WRITE = {"name": names.encode_name, "hex": bytes.hex, "base58": base58}


class Everybody:
    label = "everybody"

    async def look(self, key: PublicKey) -> Finding:
        return Finding(True, "everybody")

    def watch(self, changed: object) -> None: ...
    async def close(self) -> None: ...


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Iterator[Callable[[int, str], Path]]:
    """Files of keys, the same ones in each notation, made once."""
    folder = tmp_path_factory.mktemp("keys")

    def file_of(count: int, notation: str) -> Path:
        path = folder / f"{count}.{notation}"
        if not path.exists():
            with path.open("w") as stream:
                stream.writelines(f"{WRITE[notation](key)}\n" for key in keys_of(count))
        return path

    yield file_of
    for path in folder.iterdir():
        path.unlink()


def keys_of(count: int) -> Iterator[bytes]:
    chance = random.Random(count)
    return (chance.randbytes(31) + bytes([chance.randrange(128)]) for _ in range(count))


def some_of(count: int) -> list[bytes]:
    chance = random.Random(1)
    chosen = {chance.randrange(count) for _ in range(ASKED)}
    return [key for at, key in enumerate(keys_of(count)) if at in chosen]


def decided(count: int) -> tuple[Judge, list[PublicKey]]:
    """A judge that has decided about so many keys."""
    judge = Judge([FilePolicy()], "deny", [Everybody()], time.monotonic, recheck_s=1e9)
    keys = [PublicKey(os.urandom(32), False) for _ in range(count)]

    async def decide() -> None:
        for key in keys:
            await judge.decide(key)

    asyncio.run(decide())
    random.Random(2).shuffle(keys)
    return judge, keys


def again(judge: Judge, keys: list[PublicKey]) -> None:
    decide = judge.decide
    for key in keys:
        try:
            decide(key).send(None)  # as a coroutine that awaits it would
        except StopIteration:
            pass


def seconds_of(run: Callable[[], object]) -> float:
    """Of the processor: what else the machine does is not counted."""
    start = time.thread_time()
    run()
    return time.thread_time() - start


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def plain_set(path: Path) -> set[bytes]:
    """What one would write: the same file as a Python set of 32 bytes each."""
    with path.open() as stream:
        return {names.decode(line) for line in stream}


def each_in_table(found: KeyFile, keys: list[bytes]) -> None:
    line_of = found.table.line_of
    for key in keys:
        line_of(key)


def each_in_set(found: set[bytes], keys: list[bytes]) -> None:
    for key in keys:
        key in found  # noqa: B015


@pytest.mark.parametrize("count", [SMALL, 30_000])
def test_decision_from_memory(benchmark, count):
    judge, keys = decided(count)
    benchmark(again, judge, keys[:1000])


@pytest.mark.parametrize("notation", NOTATIONS)
def test_load(benchmark, files, notation):
    path = files(LARGE, notation)
    found = benchmark.pedantic(read_keys, (path,), rounds=ROUNDS)
    assert len(found.table) == LARGE


@pytest.mark.parametrize("count", [SMALL, LARGE])
def test_look_up(benchmark, files, count):
    benchmark(each_in_table, read_keys(files(count, "hex")), some_of(count)[:1000])


def test_look(benchmark, files):
    source = FileSource(FilePolicy(path=files(LARGE, "hex")))
    keys = [SecretKey(number.to_bytes(32, "big")).public for number in range(1000)]

    async def look() -> None:
        for key in keys:
            await source.look(key)

    asyncio.run(look())
    benchmark(lambda: asyncio.run(look()))


@pytest.mark.parametrize("count", [SMALL, 30_000])
def test_decision_ratio(count):
    judge, keys = decided(count)
    asked = (keys * (ASKED // len(keys) + 1))[:ASKED]
    plain = {key.x: True for key in keys}
    rounds = [
        (
            seconds_of(lambda: again(judge, asked)),
            seconds_of(lambda: [plain[key.x] for key in asked]),
        )
        for _ in range(ROUNDS)
    ]
    ours, theirs = (median(times) * 1e9 / ASKED for times in zip(*rounds, strict=True))
    print(f"\na decision from memory, of {count}: {ours:.0f} ns; the bare dictionary {theirs:.0f} ns")


def test_file_ratio(files):
    """In turns, so that what else the machine does meets both."""
    path = files(LARGE, "name")
    times: dict[str, list[float]] = {}
    sizes: dict[str, int] = {}
    asked = some_of(LARGE)
    for _ in range(ROUNDS):
        for who, load, each in (("ours", read_keys, each_in_table), ("set", plain_set, each_in_set)):
            gc.collect()
            before, start = resident(), time.thread_time()
            found = load(path)
            times.setdefault(f"{who} load", []).append(time.thread_time() - start)
            gc.collect()
            sizes.setdefault(who, resident() - before)  # of the first: later ones reuse what was freed
            times.setdefault(f"{who} look-up", []).append(
                seconds_of(partial(each, found, asked)) / len(asked)
            )
            del found
    ours, theirs, look, look_set = (
        median(times[name]) for name in ("ours load", "set load", "ours look-up", "set look-up")
    )
    print(
        f"\nload {ours:.2f} s, a set {theirs:.2f} s ({theirs / ours:.1f} x); memory {sizes['ours'] / 2**20:.0f} MiB, "
        f"a set {sizes['set'] / 2**20:.0f} ({sizes['set'] / sizes['ours']:.1f} x); "
        f"look-up {look * 1e9:.0f} ns, a set {look_set * 1e9:.0f} ns"
    )


def test_look_up_ratio(files):
    """Of a large file against a small one: O(1) but for the caches of the processor."""
    small, large = (read_keys(files(count, "hex")) for count in (SMALL, LARGE))
    asked = some_of(SMALL)[:SMALL], some_of(LARGE)[:SMALL]
    pairs = ((small, asked[0]), (large, asked[1]))
    rounds = [[seconds_of(partial(each_in_table, *pair)) / len(pair[1]) for pair in pairs] for _ in range(9)]
    few, many = (median(times) * 1e9 for times in zip(*rounds, strict=True))
    print(f"\na look-up among {SMALL}: {few:.0f} ns, among {LARGE}: {many:.0f} ns ({many / few:.2f} x)")
