"""The keys of QUIC Initial packets, and the removal of both protections.

Anyone who sees a client's first packet can derive them; they guard against accidents, not readers. This is
the one module that needs `cryptography` (11 MiB resident), so it is imported when the first Initial comes.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

__all__ = ["InitialKeys", "header_mask", "initial_keys", "open_payload"]

_KEY_SIZE = 16  # bytes, AES-128 (RFC 9001 §5.2)
_IV_SIZE = 12
_SECRET_SIZE = 32


@dataclass(frozen=True, slots=True)
class InitialKeys:
    """What protects a client's Initial packets, RFC 9001 §5.1."""

    key: bytes  # 16 bytes, of the AEAD
    iv: bytes  # 12 bytes
    hp: bytes  # 16 bytes, of the header protection


def initial_keys(destination_cid: bytes, salt: bytes, label: str) -> InitialKeys:
    """The client's keys for the connection ID that it chose for the server, RFC 9001 §5.2.

    `label` is the prefix of the version's key labels: "quic" or "quicv2" (RFC 9369 §3.3.2).
    """
    initial_secret = hmac.digest(salt, destination_cid, hashlib.sha256)
    secret = _expand(initial_secret, "client in", _SECRET_SIZE)
    return InitialKeys(
        _expand(secret, f"{label} key", _KEY_SIZE),
        _expand(secret, f"{label} iv", _IV_SIZE),
        _expand(secret, f"{label} hp", _KEY_SIZE),
    )


def header_mask(keys: InitialKeys, sample: bytes) -> bytes:
    """16 bytes of which the first five are the header's mask, RFC 9001 §5.4.3. `sample` has 16 bytes."""
    # ECB of one block is what the RFC asks for here.
    return Cipher(AES(keys.hp), ECB()).encryptor().update(sample)  # noqa: S305


def open_payload(keys: InitialKeys, number: int, header: bytes, sealed: bytes) -> bytes | None:
    """The frames of a packet, RFC 9001 §5.3; None when it does not authenticate.

    `number` is the whole packet number, `header` the packet up to its payload, without protection.
    """
    nonce = int.from_bytes(keys.iv, "big") ^ number
    try:
        return AESGCM(keys.key).decrypt(nonce.to_bytes(_IV_SIZE, "big"), sealed, header)
    except InvalidTag:
        return None


def _expand(secret: bytes, label: str, length: int) -> bytes:
    """HKDF-Expand-Label of RFC 8446 §7.1 with an empty context, for at most one block of output."""
    full = b"tls13 " + label.encode()
    info = length.to_bytes(2, "big") + bytes((len(full),)) + full + b"\0\x01"
    return hmac.digest(secret, info, hashlib.sha256)[:length]
