"""Initiation and response as they cross the wire (protocol.md §3), up to their mac1.

What a message is checked for here, cheapest first: its length, type, reserved bytes, suite and addressee, the
curve, the seals. What is the caller's: mac1, mac2 and rate before (`cookie`, `limit`); after it, that the
payload's Ed25519 key belongs to `remote`, that the policy admits it, and that the timestamp is a new one. Only
then does it answer.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from zignet.noise.errors import HandshakeError
from zignet.noise.handshake import NoiseInitiator, NoiseResponder, Static
from zignet.noise.suite import KEY_SIZE, TAG_SIZE, Suite

__all__ = [
    "AES_IN_HARDWARE",
    "COOKIE_SIZE",
    "INITIATION_SIZE",
    "RESPONSE_SIZE",
    "InitiationPayload",
    "Initiator",
    "Keys",
    "MessageType",
    "Responder",
    "ResponsePayload",
]


class MessageType(IntEnum):
    """The first byte of a datagram (protocol.md §2)."""

    INITIATION = 1
    RESPONSE = 2
    COOKIE = 3
    DATA = 4


# Lengths of whole messages, protocol.md §2
INITIATION_SIZE = 220
RESPONSE_SIZE = 104
COOKIE_SIZE = 64

AES_IN_HARDWARE = 1  # a feature: this host computes AES-GCM in hardware

# Offsets, protocol.md §3
_DST_AT, _DST_END = 8, 40
_FIRST_NOISE_AT, _FIRST_NOISE_END = 40, 188
_RECEIVER_AT, _RECEIVER_END = 8, 12
_SECOND_NOISE_AT, _SECOND_NOISE_END = 12, 72

_LABEL = b"ZigNet 1"
_HEADER = struct.Struct("<BBHI")  # type, suite, reserved, sender's index
_INITIATION = struct.Struct("<32sQ8sI")  # Ed25519 key, timestamp, device, features
_RESPONSE = struct.Struct("<8sI")  # device, features

_SUITES = {1: Suite.CHACHA, 2: Suite.AES}
_PROLOGUES = {suite: _LABEL + bytes((MessageType.INITIATION, suite, 0, 0)) for suite in Suite}

assert _FIRST_NOISE_AT + KEY_SIZE + KEY_SIZE + TAG_SIZE + _INITIATION.size + TAG_SIZE == _FIRST_NOISE_END
assert _SECOND_NOISE_AT + KEY_SIZE + _RESPONSE.size + TAG_SIZE == _SECOND_NOISE_END


@dataclass(frozen=True, slots=True)
class InitiationPayload:
    """What the initiator says of itself."""

    key: bytes  # Ed25519, 32 bytes
    timestamp: int  # µs since 1970, 64 bits; see `Stamps`
    device: bytes  # 8 bytes
    features: int  # 32 bits; the unknown ones mean nothing to us

    def encode(self) -> bytes:
        """52 bytes. Raises ValueError for a value that does not fit."""
        _check(self.device, self.features)
        if len(self.key) != KEY_SIZE or not 0 <= self.timestamp < 1 << 64:
            raise ValueError("a key has 32 bytes and a timestamp 64 bits")
        return _INITIATION.pack(self.key, self.timestamp, self.device, self.features)


@dataclass(frozen=True, slots=True)
class ResponsePayload:
    """What the responder says of itself."""

    device: bytes  # 8 bytes
    features: int  # 32 bits

    def encode(self) -> bytes:
        """12 bytes. Raises ValueError for a value that does not fit."""
        _check(self.device, self.features)
        return _RESPONSE.pack(self.device, self.features)


def _check(device: bytes, features: int) -> None:
    if len(device) != 8 or not 0 <= features < 1 << 32:
        raise ValueError("a device has 8 bytes and the features 32 bits")


class Keys:
    """The two transport keys of one side, of 32 bytes each; `aead(suite, key)` makes them usable."""

    __slots__ = ("receive", "send")

    def __init__(self, send: bytes, receive: bytes) -> None:
        self.send = bytearray(send)
        self.receive = bytearray(receive)

    def erase(self) -> None:
        """Overwrite both."""
        self.send[:] = bytes(len(self.send))
        self.receive[:] = bytes(len(self.receive))

    def __repr__(self) -> str:
        return "Keys(...)"


class Initiator:
    """A handshake that we began: `message` goes out, `finish` takes the answer."""

    __slots__ = ("_keys", "_noise", "message", "remote_index", "sender_index", "suite")

    def __init__(self, noise: NoiseInitiator, suite: Suite, sender_index: int, message: bytes) -> None:
        self._noise = noise
        self._keys: Keys | None = None
        self.suite = suite
        self.sender_index = sender_index  # ours
        self.remote_index = 0  # the responder's, after `finish`
        self.message = message

    @classmethod
    def begin(
        cls,
        static: Static,
        remote_x: bytes,
        psk: bytes,
        suite: Suite,
        sender_index: int,
        payload: InitiationPayload,
        random: Callable[[int], bytes] | None = None,
    ) -> Initiator:
        """Make an initiation for `remote_x`; `message` is its 188 bytes up to mac1.

        Leave `random` out but in tests: see `NoiseInitiator`. Raises HandshakeError if `remote_x` is of low
        order, ValueError if another argument is out of its range.
        """
        noise = NoiseInitiator(static, remote_x, psk, suite, _PROLOGUES[suite], random)
        header = _header(MessageType.INITIATION, suite, sender_index)
        return cls(noise, suite, sender_index, header + remote_x + noise.write(payload.encode()))

    def finish(self, response: bytes) -> ResponsePayload:
        """Take a whole response of 104 bytes; its macs are looked at elsewhere.

        Raises HandshakeError; then nothing has changed, and the right response may still come.
        """
        suite, remote_index = _read_header(response, MessageType.RESPONSE, RESPONSE_SIZE)
        if suite != self.suite:
            raise HandshakeError("the response is of another suite")
        if int.from_bytes(response[_RECEIVER_AT:_RECEIVER_END], "little") != self.sender_index:
            raise HandshakeError("the response answers another initiation")
        payload = self._noise.read(response[_SECOND_NOISE_AT:_SECOND_NOISE_END])
        self._keys = Keys(*self._noise.split())
        self.remote_index = remote_index
        return ResponsePayload(*_RESPONSE.unpack(payload))

    @property
    def keys(self) -> Keys:
        """After `finish`."""
        assert self._keys is not None
        return self._keys


class Responder:
    """A handshake that another began: `open` reads its initiation, `answer` makes the response."""

    __slots__ = ("_keys", "_noise", "payload", "remote", "sender_index", "suite")

    def __init__(
        self, noise: NoiseResponder, suite: Suite, sender_index: int, payload: InitiationPayload
    ) -> None:
        self._noise = noise
        self._keys: Keys | None = None
        self.suite = suite
        self.sender_index = sender_index  # the initiator's
        self.payload = payload
        self.remote = (
            noise.remote
        )  # the initiator's static key, proved; the payload's key is not compared yet

    @classmethod
    def open(cls, static: Static, message: bytes) -> Responder:
        """Read a whole initiation of 220 bytes; its macs are looked at elsewhere. Raises HandshakeError."""
        suite, sender_index = _read_header(message, MessageType.INITIATION, INITIATION_SIZE)
        if message[_DST_AT:_DST_END] != static.public:
            raise HandshakeError("the initiation is for somebody else")
        noise = NoiseResponder(static, suite, _PROLOGUES[suite])
        payload = noise.read(message[_FIRST_NOISE_AT:_FIRST_NOISE_END])
        return cls(noise, suite, sender_index, InitiationPayload(*_INITIATION.unpack(payload)))

    def answer(
        self,
        psk: bytes,
        sender_index: int,
        payload: ResponsePayload,
        random: Callable[[int], bytes] | None = None,
    ) -> bytes:
        """The response's 72 bytes up to mac1, once. `sender_index` is ours; `random` as with `begin`.

        Raises HandshakeError if the initiator's ephemeral key is of low order, ValueError if an argument is out
        of its range.
        """
        header = _header(MessageType.RESPONSE, self.suite, sender_index)
        receiver = self.sender_index.to_bytes(4, "little")
        message = header + receiver + self._noise.write(psk, payload.encode(), random)
        self._keys = Keys(*self._noise.split())
        return message

    @property
    def keys(self) -> Keys:
        """After `answer`."""
        assert self._keys is not None
        return self._keys


def _header(kind: MessageType, suite: Suite, sender_index: int) -> bytes:
    if not 0 < sender_index < 1 << 32:
        raise ValueError("an index has 32 bits and is not 0")
    return _HEADER.pack(kind, suite, 0, sender_index)


def _read_header(message: bytes, kind: MessageType, size: int) -> tuple[Suite, int]:
    """The suite and the sender's index of a whole message."""
    if len(message) != size:
        raise HandshakeError("the message has another length than its type")
    found, code, reserved, sender_index = _HEADER.unpack_from(message)
    suite = _SUITES.get(code)
    if found != kind or reserved:
        raise HandshakeError("the message is of another type, or of a later version")
    if suite is None:
        raise HandshakeError("the suite is unknown")
    if sender_index == 0:
        raise HandshakeError("an index of 0")
    return suite, sender_index
