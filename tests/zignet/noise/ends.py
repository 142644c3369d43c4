"""Two nodes in memory, and what damages a message."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from zignet.noise import (
    NO_PSK,
    HandshakeError,
    InitiationPayload,
    Initiator,
    MacChecker,
    MacMaker,
    Responder,
    ResponsePayload,
    Static,
    Suite,
)

ADDRESS = bytes(10) + b"\xff\xff" + bytes((192, 0, 2, 7)) + (51830).to_bytes(2, "big")
SUITES = list(Suite)


@dataclass
class End:
    """One node: its key, and what it knows of one peer."""

    secret: bytes
    static: Static = field(init=False)
    checker: MacChecker = field(init=False)

    def __post_init__(self) -> None:
        self.static = Static(self.secret)
        self.checker = MacChecker(self.static.public)

    def begin(self, other: End, suite: Suite = Suite.CHACHA, psk: bytes = NO_PSK, index: int = 0x01020304):
        """An initiation for the other end, and its whole message."""
        payload = InitiationPayload(b"k" * 32, 1_763_000_000_000_000, b"device A", 1)
        initiator = Initiator.begin(self.static, other.static.public, psk, suite, index, payload)
        return initiator, MacMaker(other.static.public).add(initiator.message, 0.0)

    def opens(self, message: bytes) -> Responder:
        """As a node does: mac1 first."""
        if not self.checker.mac1_ok(message):
            raise HandshakeError("mac1")
        return Responder.open(self.static, message)

    def answer(self, responder: Responder, psk: bytes = NO_PSK, index: int = 0x05060708) -> bytes:
        """The whole response."""
        message = responder.answer(psk, index, ResponsePayload(b"device B", 0))
        return MacMaker(responder.remote).add(message, 0.0)

    def finishes(self, initiator: Initiator, message: bytes) -> ResponsePayload:
        """As a node does: mac1 first."""
        if not self.checker.mac1_ok(message):
            raise HandshakeError("mac1")
        return initiator.finish(message)


ALICE, BOB = End(bytes(range(32))), End(bytes(range(32, 64)))


def with_mac1(message: bytes, remote: Static) -> bytes:
    """A message changed by somebody who knows whom it is for: mac1 made anew."""
    return MacMaker(remote.public).add(message[:-32], 0.0)


def flips(message: bytes, end: int) -> Iterator[bytes]:
    """Each bit of the first `end` bytes changed, one at a time; one bit a byte in the long sealed parts."""
    for at in range(end):
        for bit in range(8) if at < 40 else (at % 8,):
            yield message[:at] + bytes((message[at] ^ (1 << bit),)) + message[at + 1 :]
