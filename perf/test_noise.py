"""The handshake: how many a second a responder does on one core, and what of that is bare Diffie-Hellman.

pytest perf/test_noise.py --benchmark-enable                 the table of pytest-benchmark
pytest perf/test_noise.py -s -k "ratio or refused or bytes"  the rate, the ratio and the memory, in one line each
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from zignet.noise import (
    NO_PSK,
    InitiationPayload,
    Initiator,
    MacChecker,
    MacMaker,
    Responder,
    ResponsePayload,
    Static,
    Suite,
)

ADDRESS = bytes(10) + b"\xff\xff" + bytes((192, 0, 2, 7)) + b"\xca\x76"
ROUNDS, TIMES = 15, 60


class Responding:
    """A responder with one initiation in front of it."""

    def __init__(self, suite: Suite) -> None:
        self.initiator, self.static = Static(os.urandom(32)), Static(os.urandom(32))
        self.checker = MacChecker(self.static.public)
        self.payload = ResponsePayload(bytes(8), 0)
        self.suite = suite
        self.message = MacMaker(self.static.public).add(self.begin().message, 0.0)
        self.forged = self.message[:-32] + bytes(32)
        self.remote = X25519PublicKey.from_public_bytes(self.initiator.public)

    def begin(self) -> Initiator:
        """An initiation."""
        payload = InitiationPayload(bytes(32), 1, bytes(8), 0)
        return Initiator.begin(self.initiator, self.static.public, NO_PSK, self.suite, 7, payload)

    def handshake(self) -> None:
        """From the initiation that came to the response that goes, with the keys: everything of this package."""
        assert self.checker.mac1_ok(self.message)
        responder = Responder.open(self.static, self.message)
        MacMaker(responder.remote).add(responder.answer(NO_PSK, 9, self.payload), 0.0)
        assert responder.keys

    def bare(self) -> None:
        """What curve arithmetic that needs at least: one key pair, four exchanges."""
        self.static.secret.exchange(self.remote)
        self.static.secret.exchange(self.remote)
        ephemeral = X25519PrivateKey.generate()
        ephemeral.exchange(self.remote)
        ephemeral.exchange(self.remote)

    def refuse(self) -> None:
        """A forged mac1."""
        assert not self.checker.mac1_ok(self.forged)

    def give_cookie(self) -> None:
        """Under load: a right mac1, and no mac2."""
        assert self.checker.mac1_ok(self.message)
        assert not self.checker.mac2_ok(self.message, ADDRESS, 0.0)
        self.checker.cookie_for(self.message, ADDRESS, 0.0)


@pytest.mark.benchmark(group="noise")
@pytest.mark.parametrize("suite", list(Suite))
@pytest.mark.parametrize("what", ["handshake", "bare", "begin", "refuse", "give_cookie"])
def test_noise(benchmark: Any, what: str, suite: Suite) -> None:
    benchmark(getattr(Responding(suite), what))


def cost(function: Callable[[], object], times: int = TIMES) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    for _ in range(times):
        function()
    return (time.perf_counter() - start) / times


@pytest.mark.parametrize("suite", list(Suite))
def test_ratio(suite: Suite) -> None:
    responding = Responding(suite)
    rounds = [(cost(responding.handshake), cost(responding.bare)) for _ in range(ROUNDS)]
    whole, bare = (median(one[i] for one in rounds) for i in (0, 1))
    print(
        f"\n{suite.name}: {1 / whole:,.0f} handshakes a second, {whole * 1e6:.0f} µs each, of which "
        f"{bare * 1e6:.0f} µs are bare Diffie-Hellman: ratio {whole / bare:.2f}"
    )
    assert whole > 0


def test_refused() -> None:
    responding = Responding(Suite.CHACHA)
    forged, cookie = (cost(what, 5_000) for what in (responding.refuse, responding.give_cookie))
    print(f"\na forged mac1 costs {forged * 1e6:.2f} µs, a cookie {cookie * 1e6:.1f} µs")
    assert forged > 0


def resident() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_bytes_in_flight() -> None:
    responding = Responding(Suite.CHACHA)
    responding.begin()
    gc.collect()
    before = resident()
    waiting = [responding.begin() for _ in range(4_000)]
    each = (resident() - before) / len(waiting)
    print(f"\n{each:.0f} bytes for each handshake that waits for its answer")
    assert each < 8192
