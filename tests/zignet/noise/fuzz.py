"""Fuzz targets of the handshake. `python -m tests.zignet.noise.fuzz --seconds 600` runs them long, the suite briefly.

Inputs are good messages, damaged; mac1 is made anew where only who knows it comes further. A run is repeatable
by its seed, but for the ephemeral keys; a failure prints the seed of the input.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress

from tests.fuzzing import main
from tests.zignet.noise.ends import ADDRESS, ALICE, BOB, SUITES, with_mac1
from zignet.noise import HandshakeError, InitiationPayload, MacChecker, MacMaker, Responder, ResponsePayload
from zignet.noise.handshake import NoiseResponder

INTERESTING = (0, 1, 2, 3, 4, 0x7F, 0x80, 0xED, 0xFF)


def mutate(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """The data with up to four damages; most leave its length."""
    damaged = bytearray(data)
    for _ in range(rng.randint(0, 4)):
        at = rng.randrange(len(damaged) + 1)
        what = rng.randrange(7)
        if what == 0 and at < len(damaged):
            damaged[at] ^= 1 << rng.randrange(8)
        elif what == 1 and at < len(damaged):
            damaged[at] = rng.choice(INTERESTING)
        elif what == 2:
            size = min(rng.choice((4, 16, 32)), len(damaged) - at)
            damaged[at : at + size] = bytes((rng.choice(INTERESTING),)) * size
        elif what == 3:
            other = rng.choice(others)
            damaged[at:] = other[at:]
        elif what == 4:
            damaged[40:72] = rng.choice((bytes(32), b"\1" + bytes(31), b"\xff" * 32, BOB.static.public))
        elif what == 5 and rng.random() < 0.3:
            damaged[at:at] = rng.randbytes(rng.randint(1, 20))
        elif what == 6 and rng.random() < 0.3:
            del damaged[at:]
    return bytes(damaged)


# Invariant: any bytes open, and then say what was sealed by somebody who knew the sender's secret, or raise
# HandshakeError. What was changed beyond the sender's index does not open, with the right mac1 neither.
def fuzz_initiation(rng: random.Random) -> None:
    initiator, good = ALICE.begin(BOB, rng.choice(SUITES))
    _, other = BOB.begin(ALICE, rng.choice(SUITES))
    damaged = mutate(rng, good, [good, other])
    BOB.checker.mac1_ok(damaged)
    for message in (damaged, with_mac1(damaged, BOB.static)) if len(damaged) >= 32 else (damaged,):
        try:
            responder = Responder.open(BOB.static, message)
        except HandshakeError:
            continue
        assert len(message) == len(good)
        assert message[:4] + message[8:188] == good[:4] + good[8:188]
        assert responder.remote == ALICE.static.public
        assert responder.payload.key == b"k" * 32
    initiator.finish(BOB.answer(Responder.open(BOB.static, good)))


# Invariant: the same of a response; and whatever came before, the good one is still taken.
def fuzz_response(rng: random.Random) -> None:
    initiator, first = ALICE.begin(BOB, rng.choice(SUITES))
    good = BOB.answer(BOB.opens(first))
    damaged = mutate(rng, good, [good, first, bytes(104)])
    for message in (damaged, with_mac1(damaged, ALICE.static)) if len(damaged) >= 32 else (damaged,):
        ALICE.checker.mac1_ok(message)
        if message[:4] + message[8:72] == good[:4] + good[8:72]:
            continue
        try:
            initiator.finish(message)
        except HandshakeError:
            continue
        raise AssertionError("a changed response was taken")
    initiator.finish(good)


# Invariant: a sealed payload is whatever its sender sealed: any 52 bytes decode, and encode to themselves.
def fuzz_payload(rng: random.Random) -> None:
    raw = rng.randbytes(52)
    key, stamp, device, features = raw[:32], raw[32:40], raw[40:48], raw[48:]
    payload = InitiationPayload(
        key, int.from_bytes(stamp, "little"), device, int.from_bytes(features, "little")
    )
    assert payload.encode() == raw
    assert ResponsePayload(device, payload.features).encode() == raw[40:]


# Invariant: a Noise message of any bytes raises HandshakeError.
def fuzz_noise(rng: random.Random) -> None:
    with suppress(HandshakeError):
        NoiseResponder(BOB.static, rng.choice(SUITES), b"").read(rng.randbytes(rng.randint(0, 200)))
        raise AssertionError("garbage was opened")


# Invariant: any bytes are a cookie for the last message, or ignored; mac1 and mac2 say yes or no to anything.
def fuzz_cookie(rng: random.Random) -> None:
    checker, maker = MacChecker(BOB.static.public, rng.randbytes), MacMaker(BOB.static.public)
    message = maker.add(rng.randbytes(rng.choice((72, 188))), 0.0)
    good = checker.cookie_for(message, ADDRESS, 0.0)
    damaged = mutate(rng, good, [good, message[:64], rng.randbytes(64)])
    changed = damaged[:4] + damaged[8:] != good[:4] + good[8:]
    assert maker.cookie_received(damaged, 0.0) != changed
    bearing = maker.add(message[:-32], 0.0)
    assert checker.mac2_ok(bearing, ADDRESS, 0.0) != changed
    garbage = rng.randbytes(rng.randint(0, 230))
    assert not checker.mac1_ok(garbage)
    assert not checker.mac2_ok(garbage, ADDRESS, 0.0)


TARGETS: list[Callable[[random.Random], None]] = [
    fuzz_initiation,
    fuzz_response,
    fuzz_payload,
    fuzz_noise,
    fuzz_cookie,
]


if __name__ == "__main__":
    main(__doc__, TARGETS)
