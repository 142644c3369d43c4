"""Noise's SymmetricState (revision 34 §5.2), as far as IKpsk2 needs it.

In this pattern every cipher key of the handshake seals exactly one message, so there is no CipherState and no
counter: the nonce is zero.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag

from zignet.noise.errors import HandshakeError
from zignet.noise.suite import (
    ZERO_NONCE,
    Aead,
    Suite,
    aead,
    digest,
    hkdf1,
    hkdf2,
    hkdf3,
    protocol_name,
)

__all__ = ["SymmetricState", "beginning"]


class SymmetricState:
    """`transcript` is Noise's h, `chain` its ck, both of 32 bytes; the cipher key exists only as an AEAD object."""

    __slots__ = ("_cipher", "chain", "suite", "transcript")

    def __init__(self, suite: Suite, transcript: bytes, chain: bytes) -> None:
        self.suite = suite
        self.transcript = transcript
        self.chain = chain
        self._cipher: Aead | None = None

    def copy(self) -> SymmetricState:
        """One to try a message on; without the cipher key, which has had its one use."""
        return SymmetricState(self.suite, self.transcript, self.chain)

    def mix_hash(self, data: bytes) -> None:
        """Noise's MixHash."""
        self.transcript = digest(self.transcript + data)

    def mix_chain(self, material: bytes) -> None:
        """Noise's MixKey where the next token replaces the cipher key before anything was sealed with it."""
        self.chain = hkdf1(self.chain, material)

    def mix_key(self, material: bytes) -> None:
        """Noise's MixKey."""
        self.chain, key = hkdf2(self.chain, material)
        self._cipher = aead(self.suite, key)

    def mix_key_and_hash(self, material: bytes) -> None:
        """Noise's MixKeyAndHash."""
        self.chain, hashed, key = hkdf3(self.chain, material)
        self.transcript = digest(self.transcript + hashed)
        self._cipher = aead(self.suite, key)

    def seal(self, plain: bytes) -> bytes:
        """Noise's EncryptAndHash: 16 bytes longer."""
        assert self._cipher is not None
        sealed = self._cipher.encrypt(ZERO_NONCE, plain, self.transcript)
        self._cipher = None
        self.transcript = digest(self.transcript + sealed)
        return sealed

    def open(self, sealed: bytes) -> bytes:
        """Noise's DecryptAndHash. Raises HandshakeError."""
        assert self._cipher is not None
        try:
            plain = self._cipher.decrypt(ZERO_NONCE, sealed, self.transcript)
        except InvalidTag:
            raise HandshakeError("a part of the message does not open") from None
        self._cipher = None
        self.transcript = digest(self.transcript + sealed)
        return plain

    def split(self) -> tuple[bytes, bytes]:
        """Noise's Split: the key that the initiator sends with, and the one it receives with."""
        return hkdf2(self.chain, b"")

    def erase(self) -> None:
        """Let go of the secrets."""
        self.chain = b""
        self._cipher = None


# Both names are longer than a hash, so that they are hashed
_NAMES = {suite: digest(protocol_name(suite)) for suite in Suite}


def beginning(suite: Suite, prologue: bytes) -> SymmetricState:
    """Noise's InitializeSymmetric, and the prologue."""
    name = _NAMES[suite]
    return SymmetricState(suite, digest(name + prologue), name)
