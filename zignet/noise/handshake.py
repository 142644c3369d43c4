"""The pattern IKpsk2 as Noise knows it (revision 34 §7.5, §9): payloads in, messages out, two keys at the end.

    <- s
    ...
    -> e, es, s, ss
    <- e, ee, se, psk

Nothing of ZigNet's own layout is here; that is `message`. The vectors of other Noise implementations run
against these two classes.
"""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from zignet.noise.errors import HandshakeError
from zignet.noise.suite import KEY_SIZE, TAG_SIZE, Suite
from zignet.noise.symmetric import beginning

__all__ = ["NO_PSK", "NoiseInitiator", "NoiseResponder", "Static"]

NO_PSK = bytes(KEY_SIZE)  # stands for the pre-shared key where none is configured

_S_AT = KEY_SIZE  # of the sealed static key in the first message
_FIRST_PAYLOAD_AT = _S_AT + KEY_SIZE + TAG_SIZE
_SECOND_PAYLOAD_AT = KEY_SIZE


class Static:
    """A static secret, made ready for many handshakes. Raises ValueError unless it has 32 bytes."""

    __slots__ = ("public", "secret")

    def __init__(self, x_secret: bytes) -> None:
        self.secret = X25519PrivateKey.from_private_bytes(x_secret)
        self.public = self.secret.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return f"Static(public={self.public.hex()})"


def _ephemeral(random: Callable[[int], bytes] | None) -> X25519PrivateKey:
    if random is None:
        return X25519PrivateKey.generate()
    return X25519PrivateKey.from_private_bytes(random(KEY_SIZE))


def _exchange(secret: X25519PrivateKey, public: X25519PublicKey) -> bytes:
    try:
        return secret.exchange(public)
    except ValueError:  # the result is zero: a point of low order (RFC 7748 §6.1)
        raise HandshakeError("a public key of low order") from None


def _checked(psk: bytes) -> bytes:
    if len(psk) != KEY_SIZE:
        raise ValueError("a pre-shared key has 32 bytes")
    return psk


class NoiseInitiator:
    """The initiator: `write` once, `read` until one answer opens, then `split`.

    `random(32)` gives the ephemeral secret. Without it the key is made inside of OpenSSL, which is how it should
    be: then it never is an object of Python's, and OpenSSL overwrites it when it is released.
    """

    __slots__ = ("_ephemeral", "_psk", "_remote", "_static", "_symmetric")

    def __init__(
        self,
        static: Static,
        remote: bytes,
        psk: bytes,
        suite: Suite,
        prologue: bytes,
        random: Callable[[int], bytes] | None = None,
    ) -> None:
        self._static = static
        self._psk = _checked(psk)
        self._remote = X25519PublicKey.from_public_bytes(remote)
        self._ephemeral: X25519PrivateKey | None = _ephemeral(random)
        self._symmetric = beginning(suite, prologue)
        self._symmetric.mix_hash(remote)

    @property
    def transcript(self) -> bytes:
        """Noise's handshake hash, of everything that was written and read."""
        return self._symmetric.transcript

    def write(self, payload: bytes) -> bytes:
        """The first message: 80 bytes and the sealed payload. Raises HandshakeError if `remote` is of low order."""
        ephemeral, symmetric = self._ephemeral, self._symmetric
        assert ephemeral is not None
        e = ephemeral.public_key().public_bytes_raw()
        symmetric.mix_hash(e)
        symmetric.mix_chain(e)
        symmetric.mix_key(_exchange(ephemeral, self._remote))
        sealed = symmetric.seal(self._static.public)
        symmetric.mix_key(_exchange(self._static.secret, self._remote))
        return e + sealed + symmetric.seal(payload)

    def read(self, message: bytes) -> bytes:
        """The payload of the second message. Raises HandshakeError, and then waits on as if it had not come."""
        ephemeral = self._ephemeral
        if ephemeral is None:
            raise HandshakeError("this handshake is over")
        if len(message) < _SECOND_PAYLOAD_AT + TAG_SIZE:
            raise HandshakeError("the message is too short")
        symmetric = self._symmetric.copy()
        e = message[:KEY_SIZE]
        symmetric.mix_hash(e)
        symmetric.mix_chain(e)
        key = X25519PublicKey.from_public_bytes(e)
        symmetric.mix_chain(_exchange(ephemeral, key))
        symmetric.mix_chain(_exchange(self._static.secret, key))
        symmetric.mix_key_and_hash(self._psk)
        payload = symmetric.open(message[_SECOND_PAYLOAD_AT:])
        self._symmetric = symmetric
        self._ephemeral = None
        self._psk = b""
        return payload

    def split(self) -> tuple[bytes, bytes]:
        """Two keys, to send and to receive with; once, after `read`."""
        first, second = self._symmetric.split()
        self._symmetric.erase()
        return first, second


class NoiseResponder:
    """The responder: `read` once, `write` once, then `split`. `random` as with the initiator."""

    __slots__ = ("_ephemeral", "_remote", "_static", "_symmetric", "remote")

    def __init__(self, static: Static, suite: Suite, prologue: bytes) -> None:
        self._static = static
        self._symmetric = beginning(suite, prologue)
        self._symmetric.mix_hash(static.public)
        self._ephemeral: X25519PublicKey | None = None
        self._remote: X25519PublicKey | None = None
        self.remote = b""  # the initiator's static key, after `read`

    @property
    def transcript(self) -> bytes:
        """Noise's handshake hash, of everything that was read and written."""
        return self._symmetric.transcript

    def read(self, message: bytes) -> bytes:
        """The payload of the first message. Raises HandshakeError; the object is of no more use then."""
        if len(message) < _FIRST_PAYLOAD_AT + TAG_SIZE:
            raise HandshakeError("the message is too short")
        secret, symmetric = self._static.secret, self._symmetric
        e = message[:KEY_SIZE]
        symmetric.mix_hash(e)
        symmetric.mix_chain(e)
        ephemeral = X25519PublicKey.from_public_bytes(e)
        symmetric.mix_key(_exchange(secret, ephemeral))
        self.remote = symmetric.open(message[_S_AT:_FIRST_PAYLOAD_AT])
        remote = X25519PublicKey.from_public_bytes(self.remote)
        symmetric.mix_key(_exchange(secret, remote))
        payload = symmetric.open(message[_FIRST_PAYLOAD_AT:])
        self._ephemeral, self._remote = ephemeral, remote
        return payload

    def write(self, psk: bytes, payload: bytes, random: Callable[[int], bytes] | None = None) -> bytes:
        """The second message: 32 bytes and the sealed payload. Raises HandshakeError if it was written already."""
        if self._ephemeral is None or self._remote is None:
            raise HandshakeError("this handshake is over")
        psk = _checked(psk)
        ephemeral, symmetric = _ephemeral(random), self._symmetric
        e = ephemeral.public_key().public_bytes_raw()
        symmetric.mix_hash(e)
        symmetric.mix_chain(e)
        symmetric.mix_chain(_exchange(ephemeral, self._ephemeral))
        symmetric.mix_chain(_exchange(ephemeral, self._remote))
        symmetric.mix_key_and_hash(psk)
        self._ephemeral = self._remote = None
        return e + symmetric.seal(payload)

    def split(self) -> tuple[bytes, bytes]:
        """Two keys, to send and to receive with; once, after `write`."""
        first, second = self._symmetric.split()
        self._symmetric.erase()
        return second, first
