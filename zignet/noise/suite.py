"""The two suites, and Noise's functions of one hash: BLAKE2s, HMAC on it, HKDF (Noise revision 34 §4).

HMAC is written out as its two hashes: the pads come from `bytes.translate`, and what one key makes several
outputs from is padded once. That is half the cost of `hmac.digest` for the 32 bytes that Noise hashes here.
"""

from __future__ import annotations

from enum import IntEnum
from hashlib import blake2s

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

__all__ = [
    "KEY_SIZE",
    "TAG_SIZE",
    "ZERO_NONCE",
    "Aead",
    "Suite",
    "aead",
    "digest",
    "hkdf1",
    "hkdf2",
    "hkdf3",
    "hmac",
    "nonce",
    "protocol_name",
]

KEY_SIZE = 32  # bytes: a hash, a Diffie-Hellman value, a cipher key
TAG_SIZE = 16  # bytes that a seal adds
ZERO_NONCE = bytes(12)  # counter 0, the same in both suites

_BLOCK = 64  # bytes, of BLAKE2s
_INNER = bytes(i ^ 0x36 for i in range(256))
_OUTER = bytes(i ^ 0x5C for i in range(256))
_INNER_REST = b"\x36" * (_BLOCK - KEY_SIZE)
_OUTER_REST = b"\x5c" * (_BLOCK - KEY_SIZE)

Aead = AESGCM | ChaCha20Poly1305


class Suite(IntEnum):
    """Byte 1 of an initiation and of a response (protocol.md §3)."""

    CHACHA = 1
    AES = 2


_NAMES = {Suite.CHACHA: b"ChaChaPoly", Suite.AES: b"AESGCM"}


def protocol_name(suite: Suite) -> bytes:
    """Noise's name of the suite."""
    return b"Noise_IKpsk2_25519_" + _NAMES[suite] + b"_BLAKE2s"


def aead(suite: Suite, key: bytes | bytearray) -> Aead:
    """The suite's AEAD with a key of 32 bytes; it keeps a copy of its own, inside of OpenSSL."""
    return AESGCM(key) if suite == Suite.AES else ChaCha20Poly1305(key)


def nonce(suite: Suite, counter: int) -> bytes:
    """The 12 bytes of a counter (Noise §12): little-endian with ChaCha20-Poly1305, big-endian with AES-GCM."""
    return bytes(4) + counter.to_bytes(8, "big" if suite == Suite.AES else "little")


def digest(data: bytes) -> bytes:
    """BLAKE2s-256 (RFC 7693), protocol.md's `H`."""
    return blake2s(data).digest()


def hmac(key: bytes, message: bytes) -> bytes:
    """HMAC-BLAKE2s (RFC 2104) with a key of 32 bytes."""
    inner = blake2s(key.translate(_INNER) + _INNER_REST + message).digest()
    return blake2s(key.translate(_OUTER) + _OUTER_REST + inner).digest()


def hkdf1(chain: bytes, material: bytes) -> bytes:
    """The first output of Noise's HKDF, where nobody uses the second."""
    return hmac(hmac(chain, material), b"\x01")


def hkdf2(chain: bytes, material: bytes) -> tuple[bytes, bytes]:
    """Noise's HKDF with two outputs."""
    key = hmac(chain, material)
    inner, outer = key.translate(_INNER) + _INNER_REST, key.translate(_OUTER) + _OUTER_REST
    first = blake2s(outer + blake2s(inner + b"\x01").digest()).digest()
    return first, blake2s(outer + blake2s(inner + first + b"\x02").digest()).digest()


def hkdf3(chain: bytes, material: bytes) -> tuple[bytes, bytes, bytes]:
    """Noise's HKDF with three outputs."""
    key = hmac(chain, material)
    inner, outer = key.translate(_INNER) + _INNER_REST, key.translate(_OUTER) + _OUTER_REST
    first = blake2s(outer + blake2s(inner + b"\x01").digest()).digest()
    second = blake2s(outer + blake2s(inner + first + b"\x02").digest()).digest()
    return first, second, blake2s(outer + blake2s(inner + second + b"\x03").digest()).digest()
